"""Recurrent modules beside torch.nn.LSTM and loops of cells: forward and backward, peak memory, and what each can do.

The loops are what one writes by hand: a cell of two Linear and three LayerNorm layers in a Python loop, and the same
through torch.jit.script. All contenders take turns in one process; the A/A row is nn.LSTM twice. Memory is the rise of
the resident set over one training step in a process of its own; on a GPU, the peak of what its allocator gave out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.timing import interval, machine, microseconds, ratio, rounds, table
from gradguard import nn as gnn

SHAPES = ((200, 16, 64, 64), (100, 32, 128, 256), (100, 64, 512, 512), (784, 32, 1, 128))
CUDA_SHAPES = (*SHAPES, *((100, 64, hidden, hidden) for hidden in (128, 256, 1024)))
TORCH, AGAIN, LOOP, SCRIPT = "nn.LSTM", "nn.LSTM (A/A)", "loop of LayerNorm cells", "scripted loop"


class Cell(nn.Module):
    """A LayerNorm LSTM cell as one writes it."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.ih, self.hh = nn.Linear(input_size, 4 * hidden_size, bias=False), nn.Linear(hidden_size, 4 * hidden_size)
        self.norm_ih, self.norm_hh = nn.LayerNorm(4 * hidden_size), nn.LayerNorm(4 * hidden_size)
        self.norm_c = nn.LayerNorm(hidden_size)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.norm_ih(self.ih(x)) + self.norm_hh(self.hh(h))).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.norm_c(c)), c


class Loop(nn.Module):
    """The cell in a loop."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_size = Cell(input_size, hidden_size), hidden_size

    def forward(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = x.new_zeros(x.shape[1], self.hidden_size)
        c = x.new_zeros(x.shape[1], self.hidden_size)
        outputs: list[Tensor] = []
        for x_t in x.unbind(0):
            h, c = self.cell(x_t, h, c)
            outputs.append(h)
        return torch.stack(outputs), (h, c)


def scripted(input_size: int, hidden_size: int) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(Loop(input_size, hidden_size))


KINDS: dict[str, Callable[[int, int], nn.Module]] = {
    TORCH: nn.LSTM,
    AGAIN: nn.LSTM,
    "gnn.LSTM": gnn.LSTM,
    "gnn.LayerNormLSTM": gnn.LayerNormLSTM,
    "gnn.NormalizedCellLSTM": gnn.NormalizedCellLSTM,
    LOOP: Loop,
    SCRIPT: scripted,
}


def training_step(kind: str, shape: tuple[int, int, int, int], device: str = "cpu") -> Callable[[], float]:
    """One forward and backward pass, and how long it takes."""
    steps, batch, width, hidden = shape
    module = KINDS[kind](width, hidden).to(device)
    x = torch.randn(steps, batch, width, device=device, requires_grad=True)
    grad = torch.randn(steps, batch, hidden, device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def step() -> float:
        wait()
        start = perf_counter()
        module(x)[0].backward(grad)
        wait()
        seconds = perf_counter() - start
        x.grad = None
        module.zero_grad()
        return seconds

    return step


def speed(n: int, device: str) -> list[str]:
    lines, ratios = [f"## Forward and backward: {n} rounds\n"], []
    for shape in CUDA_SHAPES if device == "cuda" else SHAPES:
        seconds = rounds({kind: training_step(kind, shape, device) for kind in KINDS}, n)
        to_torch = {kind: ratio(values, seconds[TORCH]) for kind, values in seconds.items()}
        to_loop = {kind: ratio(values, seconds[LOOP]) for kind, values in seconds.items()}
        ratios.append({kind: value[0] for kind, value in to_torch.items()})
        rows = [
            [kind, microseconds(values), interval(to_torch[kind]), interval(to_loop[kind])]
            for kind, values in seconds.items()
        ]
        lines += [f"### (T, B, I, H) = {shape}\n", table(["", "us (quartiles)", "to nn.LSTM", "to the loop"], rows), ""]
    means = {kind: torch.tensor([r[kind] for r in ratios]).log().mean().exp().item() for kind in KINDS}
    rows = [[kind, f"{mean:.2f}"] for kind, mean in means.items()]
    return [*lines, "### Geometric mean of the ratios to nn.LSTM\n", table(["", "ratio"], rows), ""]


def resident(field: str) -> float:
    """A field of the process's memory, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def rise(kind: str, shape: tuple[int, int, int, int]) -> float:
    """How far the resident set rises in one training step, in MiB; in this process, which has done nothing else."""
    training_step(kind, (2, 2, *shape[2:]))()  # loads the libraries
    step = training_step(kind, shape)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return resident("VmHWM") - before


def allocated(kind: str, shape: tuple[int, int, int, int]) -> float:
    """How far what the GPU's allocator gave out rises in one training step, in MiB."""
    training_step(kind, (2, 2, *shape[2:]), "cuda")()  # loads the libraries
    step = training_step(kind, shape, "cuda")
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def memory(device: str) -> list[str]:
    rows = []
    kinds = [kind for kind in KINDS if kind != AGAIN]
    if device == "cuda":
        rows = [[str(shape), *(f"{allocated(kind, shape):.0f}" for kind in kinds)] for shape in CUDA_SHAPES]
        return ["## Peak memory of a training step, MiB\n", table(["(T, B, I, H)", *kinds], rows), ""]
    for shape in SHAPES:
        row = [str(shape)]
        for kind in kinds:
            command = [sys.executable, "-m", "benchmarks.recurrent", "--rise", kind, *map(str, shape)]
            row.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
        rows.append(row)
    return ["## Peak memory of a training step, MiB\n", table(["(T, B, I, H)", *kinds], rows), ""]


def contract() -> list[str]:
    """What of the contract each module keeps."""
    from tests.contracts.recurrent import CONTRACT, MODULES

    warnings.simplefilter("ignore")
    rows = []
    kinds = {TORCH: nn.LSTM} | {f"gnn.{name}": kind for name, kind in MODULES.items()}
    for name, check in CONTRACT.items():
        row = [name.replace("_", " ")]
        for kind in kinds.values():
            try:
                check(kind)
            except BaseException as error:
                row.append(f"**no**: {type(error).__name__}")
            else:
                row.append("yes")
        rows.append(row)
    kept = [sum(row[i + 1] == "yes" for row in rows) for i in range(len(kinds))]
    summary = ", ".join(f"{name} keeps {n}" for name, n in zip(kinds, kept, strict=True))
    return [f"## Contract: of {len(rows)} points {summary}\n", table(["", *kinds], rows), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=["speed", "memory", "contract"])
    parser.add_argument("--rise", nargs=5, metavar=("KIND", "T", "B", "I", "H"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rise:
        kind, *shape = options.rise
        print(f"{rise(kind, tuple(map(int, shape))):.0f}")
        return
    print(f"# Recurrent modules\n\n{machine(options.device)}\n")
    parts = {
        "speed": lambda: speed(options.rounds, options.device),
        "memory": lambda: memory(options.device),
        "contract": contract,
    }
    for name, part in parts.items():
        if options.only in (None, name):
            print("\n".join(part()))


if __name__ == "__main__":
    main()
