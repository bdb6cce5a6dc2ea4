"""Recurrent modules beside torch's and loops of cells: forward and backward, peak memory, and what each can do.

The loops are what one writes by hand. "Classes" holds every module against a Python loop over its own step in plain
torch, with the product with x inside the step and the gradients that autograd finds, and against torch's module where
torch has it. "Speed" holds nn.LSTM against ours and two loops of a cell of two Linear and three LayerNorm layers, one
of them through torch.jit.script; its A/A row is nn.LSTM twice. Contenders take turns in one process. Memory is the rise
of the resident set over one training step in a process of its own; on a GPU, the peak of what its allocator gave out.
"""

from __future__ import annotations

import argparse
import inspect
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor, nn

from benchmarks.timing import interval, machine, microseconds, ratio, rounds, table
from gradguard import nn as gnn

Shape = tuple[int, int, int, int]
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


class OwnLoop(nn.Module):
    """A loop over the steps of a module of one layer, with its weights."""

    def __init__(self, module: gnn.AbstractRecurrent) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        recurrence = self.module.recurrence
        params = {name.removesuffix("_l0"): param for name, param in self.module.named_parameters()}
        step = recurrence.begin(recurrence.effective(params), [])
        widths = recurrence.widths(self.module.hidden_size, 0)
        states, outputs = [x.new_zeros(x.shape[1], width) for width in widths], []
        for x_t in x.unbind(0):
            states = step(x_t, *states)
            outputs.append(states[0])
        return torch.stack(outputs), states


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
CLASSES = {
    name: kind
    for name, kind in vars(gnn).items()
    if isinstance(kind, type) and issubclass(kind, gnn.AbstractRecurrent) and not name.startswith("Abstract")
}
COUNTERPARTS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}


def made(kind: Callable[..., nn.Module], shape: Shape) -> nn.Module:
    """One layer; what counts the steps is told how many there are."""
    steps, _, width, hidden = shape
    taken = inspect.signature(kind).parameters
    return kind(width, hidden, **{name: steps for name in ("length", "max_steps") if name in taken})


def training_step(module: nn.Module, shape: Shape, device: str = "cpu") -> Callable[[], float]:
    """One forward and backward pass, and how long it takes."""
    steps, batch, width, hidden = shape
    module.to(device)
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
        seconds = rounds({name: training_step(made(kind, shape), shape, device) for name, kind in KINDS.items()}, n)
        to_torch = {kind: ratio(values, seconds[TORCH]) for kind, values in seconds.items()}
        to_loop = {kind: ratio(values, seconds[LOOP]) for kind, values in seconds.items()}
        ratios.append({kind: value[0] for kind, value in to_torch.items()})
        rows = [
            [kind, microseconds(values), interval(to_torch[kind]), interval(to_loop[kind])]
            for kind, values in seconds.items()
        ]
        lines += [f"### (T, B, I, H) = {shape}\n", table(["", "us (quartiles)", "to nn.LSTM", "to the loop"], rows), ""]
    rows = [[kind, f"{geometric_mean([r[kind] for r in ratios]):.2f}"] for kind in KINDS]
    return [*lines, "### Geometric mean of the ratios to nn.LSTM\n", table(["", "ratio"], rows), ""]


def geometric_mean(values: Sequence[float]) -> float:
    return torch.tensor(values).log().mean().exp().item()


def classes(n: int, device: str) -> list[str]:
    """Every class beside the loop over its own step."""
    shapes, lines = CUDA_SHAPES if device == "cuda" else SHAPES, [f"## Every class beside its loop: {n} rounds\n"]
    header = ["", "us (quartiles)", "its loop, us (quartiles)", "to its loop", "to torch's"]
    to_loop: dict[str, list[float]] = {name: [] for name in CLASSES}
    to_torch: dict[str, list[float]] = {name: [] for name in COUNTERPARTS}
    for shape in shapes:
        rows = []
        for name, kind in CLASSES.items():
            module = made(kind, shape)
            contenders = {"ours": module, "loop": OwnLoop(module)}
            if name in COUNTERPARTS:
                contenders["torch"] = made(COUNTERPARTS[name], shape)
            seconds = rounds({who: training_step(it, shape, device) for who, it in contenders.items()}, n)
            ratios = {who: ratio(seconds["ours"], seconds[who]) for who in contenders}
            to_loop[name].append(ratios["loop"][0])
            if name in COUNTERPARTS:
                to_torch[name].append(ratios["torch"][0])
            times, against = [microseconds(seconds[who]) for who in ("ours", "loop")], interval(ratios["loop"])
            rows.append([name, *times, against, interval(ratios["torch"]) if name in COUNTERPARTS else ""])
        lines += [f"### (T, B, I, H) = {shape}\n", table(header, rows), ""]
    rows = [
        [
            name,
            *(f"{value:.2f}" for value in [*values, geometric_mean(values)]),
            f"{geometric_mean(to_torch[name]):.2f}" if name in COUNTERPARTS else "",
        ]
        for name, values in to_loop.items()
    ]
    header = ["to its loop at (T, B, I, H) =", *map(str, shapes), "geometric mean", "of the ratios to torch's"]
    return [*lines, "### Summary; the goal is 0.5\n", table(header, rows), ""]


def products(shape: Shape, gates: int, device: str) -> Callable[[], float]:
    """The matrix products of one forward and backward pass alone, of all steps at once where that can be."""
    steps, batch, width, hidden = shape
    x, h = torch.randn(steps * batch, width, device=device), torch.randn(steps * batch, hidden, device=device)
    d = torch.randn(steps * batch, gates * hidden, device=device)
    of_x, of_h = (torch.randn(gates * hidden, n, device=device) for n in (width, hidden))
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def step() -> float:
        wait()
        start = perf_counter()
        x @ of_x.t()
        for h_t, d_t in zip(h.split(batch), d.split(batch), strict=True):
            h_t @ of_h.t()
            d_t @ of_h
        d @ of_x
        d.t() @ x
        d.t() @ h
        wait()
        return perf_counter() - start

    return step


def floor(n: int, device: str) -> list[str]:
    """How much of a loop's time its products alone are: below that no kernel gets with the same products."""
    rows = []
    for shape in CUDA_SHAPES if device == "cuda" else SHAPES:
        for name, gates in (("LSTM", 4), ("GRU", 3)):
            module = made(CLASSES[name], shape)
            alone, loop = products(shape, gates, device), training_step(OwnLoop(module), shape, device)
            seconds = rounds({"products": alone, "loop": loop, "ours": training_step(module, shape, device)}, n)
            shares = [interval(ratio(seconds[who], seconds["loop"])) for who in ("products", "ours")]
            rows.append([name, str(shape), *shares])
    header = ["", "(T, B, I, H)", "products to the loop", "ours to the loop"]
    return [f"## What the products alone take: {n} rounds\n", table(header, rows), ""]


def resident(field: str) -> float:
    """A field of the process's memory, in MiB."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def rise(kind: str, shape: Shape) -> float:
    """How far the resident set rises in one training step, in MiB; in this process, which has done nothing else."""
    small = (2, 2, *shape[2:])
    training_step(made(KINDS[kind], small), small)()  # loads the libraries
    step = training_step(made(KINDS[kind], shape), shape)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    step()
    return resident("VmHWM") - before


def allocated(kind: str, shape: Shape) -> float:
    """How far what the GPU's allocator gave out rises in one training step, in MiB."""
    small = (2, 2, *shape[2:])
    training_step(made(KINDS[kind], small), small, "cuda")()  # loads the libraries
    step = training_step(made(KINDS[kind], shape), shape, "cuda")
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


def kept(name: str) -> list[str]:
    """What of the contract a module keeps."""
    from tests.contracts.recurrent import CONTRACT, MODULES

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    kind, points = nn.LSTM if name == TORCH else MODULES[name], []
    for check in CONTRACT.values():
        try:
            check(kind)
        except BaseException as error:
            points.append(f"**no**: {type(error).__name__}")
        else:
            points.append("yes")
    return points


def contract() -> list[str]:
    """What of the contract each module keeps, in two processes: most of the time graphs are compiled."""
    from tests.contracts.recurrent import CONTRACT, MODULES

    kinds = [TORCH, *MODULES]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        columns = dict(zip(kinds, pool.map(kept, kinds), strict=True))
    rows = [[name.replace("_", " "), *points] for name, *points in zip(CONTRACT, *columns.values(), strict=True)]
    summary = ", ".join(f"{name} keeps {points.count('yes')}" for name, points in columns.items())
    return [f"## Contract: of {len(rows)} points {summary}\n", table(["", *kinds], rows), ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="a third as many for the table of all classes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", choices=["speed", "classes", "floor", "memory", "contract"])
    parser.add_argument("--rise", nargs=5, metavar=("KIND", "T", "B", "I", "H"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rise:
        kind, *shape = options.rise
        print(f"{rise(kind, tuple(map(int, shape))):.0f}")
        return
    print(f"# Recurrent modules\n\n{machine(options.device)}\n")
    parts = {
        "speed": lambda: speed(options.rounds, options.device),
        "classes": lambda: classes(max(options.rounds // 3, 2), options.device),
        "floor": lambda: floor(options.rounds, options.device),
        "memory": lambda: memory(options.device),
        "contract": contract,
    }
    for name, part in parts.items():
        if options.only in (None, name):
            print("\n".join(part()))


if __name__ == "__main__":
    main()
