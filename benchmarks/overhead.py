"""What watching the gradients costs: Guard beside clip_grad_norm_, Lightning's grad_norm and the work of wandb.watch.

Own time is taken inside the running loop, around the call or the hooks. Whole steps of all contenders are interleaved,
each on its own copy of the model; the ratio is to the loop with clip_grad_norm_, and its A/A row is that loop twice. On
a GPU, own time is the host's, and a step ends when the GPU is done.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from time import perf_counter

import torch
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn

from benchmarks.overhead_lightning import inside_lightning
from benchmarks.timing import interval, machine, microseconds, ratio, rounds, table
from gradguard import Guard
from gradguard.clip import ZClip
from gradguard.recover import Skip

Options = Callable[[], dict[str, object]] | None  # of a guard
STEPS = 10  # steps in a turn
EVERY = 50


class SmallLSTM(nn.Module):
    """0.23 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 128, num_layers=2)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][-1])


def transformer() -> tuple[nn.Module, Tensor]:
    """12 layers, 9.5 M parameters, 8 sequences of 64."""
    layer = nn.TransformerEncoderLayer(256, 8, 1024, dropout=0.0, batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), torch.randn(8, 64, 256)


def small_lstm() -> tuple[nn.Module, Tensor]:
    """2 layers of 128 units, 16 sequences of 64 steps."""
    return SmallLSTM(), torch.randn(64, 16, 64)


def watch_work(params: list[nn.Parameter]) -> None:
    """What wandb.watch(log="gradients") does on a logged step: clone, test twice, extremes, 64 bins, to the host."""
    for param in params:
        flat = param.grad.detach().clone().reshape(-1)
        if not flat.isfinite().any():
            continue
        if not flat.isfinite().all():
            flat = flat[flat.isfinite()]
        low, high = flat.min().item(), flat.max().item()
        flat.histc(64, low, high).cpu().tolist()


class Loop:
    """One contender: a model of its own, a step, and the time that the watching takes in it."""

    def __init__(
        self, model: nn.Module, x: Tensor, watch: Callable[[nn.Module], object] | None, *, guard: Options
    ) -> None:
        self.model, self.x, self.watch = copy.deepcopy(model), x, watch
        self.wait = torch.cuda.synchronize if x.is_cuda else lambda: None
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4)
        self.own: list[float] = []
        if guard is not None:
            Guard(self.model, self.optimizer, every_n_steps=EVERY, **guard())
            for hooks in (self.optimizer._optimizer_step_pre_hooks, self.optimizer._optimizer_step_post_hooks):
                for key, hook in list(hooks.items()):
                    hooks[key] = self._timed(hook)

    def _timed(self, hook: Callable[..., object]) -> Callable[..., object]:
        def timed(*args: object) -> object:
            start = perf_counter()
            result = hook(*args)
            self.own[-1] += perf_counter() - start
            return result

        return timed

    def step(self) -> float:
        self.wait()
        start = perf_counter()
        self.optimizer.zero_grad()
        self.model(self.x).square().mean().backward()
        self.own.append(0.0)
        if self.watch:
            before = perf_counter()
            self.watch(self.model)
            self.own[-1] += perf_counter() - before
        self.optimizer.step()
        self.wait()
        return perf_counter() - start

    def turn(self) -> float:
        return statistics.median(self.step() for _ in range(STEPS))


def clip(model: nn.Module) -> None:
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


CONTENDERS: dict[str, tuple[Callable[[nn.Module], object] | None, Options]] = {
    "bare": (None, None),
    "clip_grad_norm_": (clip, None),
    "clip_grad_norm_ (A/A)": (clip, None),
    "Guard": (None, dict),
    "Guard(clip=ZClip())": (None, lambda: {"clip": ZClip()}),
    "Guard(clip=ZClip(max_norm=1e-3))": (None, lambda: {"clip": ZClip(max_norm=1e-3)}),
    "Guard(clip=ZClip(), recover=Skip())": (None, lambda: {"clip": ZClip(), "recover": Skip()}),
    "Lightning grad_norm": (lambda model: grad_norm(model, 2), None),
    "wandb.watch's work": (lambda model: watch_work(list(model.parameters())), None),
}


def compare(title: str, make: Callable[[], tuple[nn.Module, Tensor]], n: int, device: str) -> None:
    torch.manual_seed(0)
    model, x = (made.to(device) for made in make())
    loops = {name: Loop(model, x, watch, guard=guard) for name, (watch, guard) in CONTENDERS.items()}
    whole = rounds({name: loop.turn for name, loop in loops.items()}, n)
    # Turn by turn, the median over its plain steps: what is sampled and flushed every 50 steps gets its own row.
    own = {
        name: [statistics.median(loop.own[i : i + STEPS]) for i in range(STEPS, len(loop.own), STEPS)]
        for name, loop in loops.items()
    }
    steady = [t for step, t in enumerate(loops["Guard"].own, start=1) if step > EVERY]
    dear = [t for step, t in enumerate(loops["Guard"].own, start=1) if step > EVERY and step % EVERY == 0]
    parameters = sum(p.numel() for p in model.parameters())
    print(
        f"\n### {title}: {parameters / 1e6:.2f} M in {len(list(model.parameters()))} parameters, "
        f"{n} rounds of {STEPS} steps\n"
    )
    rows = []
    for name in CONTENDERS:
        watches = name != "bare"
        rows.append(
            [
                name,
                microseconds(own[name]) if watches else "",
                interval(ratio(own[name], own["clip_grad_norm_"])) if watches else "",
                microseconds(whole[name]),
                interval(ratio(whole[name], whole["clip_grad_norm_"])),
            ]
        )
    print(table(["", "own time, us (quartiles)", "/ clip's own", "whole step, us", "/ step with clip [95 %]"], rows))
    work = statistics.median(own["wandb.watch's work"])
    mean_step = statistics.mean(whole["clip_grad_norm_"])
    print(
        f"\nGuard's every {EVERY}th step, which samples weights and updates, flushes and judges: "
        f"{statistics.median(dear) * 1e6:,.0f} us, {statistics.median(dear) / work:.3f} of wandb.watch's work. "
        f"All of Guard's steps together: {statistics.mean(steady) * 1e6:,.0f} us a step on average, "
        f"{statistics.mean(steady) / statistics.mean(own['clip_grad_norm_']):.2f} of clip_grad_norm_'s, "
        f"{statistics.mean(steady) / mean_step:.2%} of the step."
    )


def growth(n: int) -> None:
    print("\n### Growth with the number of parameters (64 entries each), own time of one step in us\n")
    rows = []
    for count in (100, 1_000, 10_000):
        model = nn.ParameterList([nn.Parameter(torch.randn(8, 8)) for _ in range(count)])
        for param in model:
            param.grad = torch.randn(8, 8)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        guard = Guard(model, optimizer, every_n_steps=EVERY)
        (pre,) = optimizer._optimizer_step_pre_hooks.values()
        (post,) = optimizer._optimizer_step_post_hooks.values()

        def hooks(pre=pre, post=post, optimizer=optimizer) -> None:
            pre(optimizer, (optimizer,), {})
            post(optimizer, (optimizer,), {})

        def timed(call: Callable[[], object], repeats: int = EVERY) -> Callable[[], float]:
            def turn() -> float:  # a whole period, so that its flush and its sample are in the mean
                start = perf_counter()
                for _ in range(repeats):
                    call()
                return (perf_counter() - start) / repeats

            return turn

        seconds = rounds(
            {
                "clip": timed(lambda model=model: nn.utils.clip_grad_norm_(model.parameters(), 1.0)),
                "guard": timed(hooks),
                "lightning": timed(lambda model=model: grad_norm(model, 2), 3),
            },
            n,
        )
        rows.append(
            [
                f"{count:,}",
                *(microseconds(seconds[name]) for name in ("clip", "guard", "lightning")),
                interval(ratio(seconds["guard"], seconds["clip"])),
            ]
        )
        guard.close()
    print(
        table(
            [
                "parameters",
                "clip_grad_norm_",
                "Guard, flushes and samples included",
                "Lightning grad_norm",
                "Guard / clip",
            ],
            rows,
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--only", choices=["loop", "growth", "lightning"], help="one part of it")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="of the loops")
    chosen = parser.parse_args()
    n, only, device = chosen.rounds, chosen.only, chosen.device
    print(f"# Overhead\n\n{machine(device)}")
    if only in (None, "loop"):
        compare("Small LSTM", small_lstm, 6 * n, device)  # short steps: many turns for the same precision
        compare("12-layer transformer", transformer, n, device)
    if only in (None, "growth"):
        growth(max(3, n // 4))
    if only in (None, "lightning"):
        inside_lightning("Small LSTM", small_lstm, n)
        inside_lightning("12-layer transformer", transformer, max(3, n // 4), steps=EVERY + 1)


if __name__ == "__main__":
    sys.exit(main())
