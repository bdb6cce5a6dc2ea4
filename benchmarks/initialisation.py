"""Initialisers: how soon LSTMs solve two tasks of long memory, and stacks of 30 Linear layers digits.

For each seed all initialisers start from torch's own weights, change only what they are for, and see the same batches;
each task has one setting, for all of them. A run has solved its task at the first evaluation at which what it makes of
a fixed held-out set is under the goal. One that never gets there counts as later than the budget; two such are a tie.
Medians have bootstrapped 95 % intervals; p is that of the sign test, exact, two-sided, without the ties.

Adding: Hochreiter and Schmidhuber 1997; copying: Arjovsky et al. 2016; 1 is the loss of one who remembers nothing.
Tallec and Ollivier 2018 train 128 units on batches of 50, with RMSprop at 0.001 and without clipping. At that rate 64
units on batches of 32 had learnt nothing after 2,400 and 3,000 steps, whichever way they began (seed 0). To fit into
half an hour on two cores, it is 32 and 64 units here, batches of 32, Adam at 0.01, and the gradient clipped to norm 1.
Digits: Adam at its default, 0.001.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.timing import machine, table
from gradguard import init

TORCH, FORGET = "torch's default", "forget_gate_(1)"
Draw = Callable[[int, int, Generator], tuple[Tensor, Tensor]]
Initialise = Callable[[nn.Module, Tensor, Generator], object]
GATES: Mapping[str, Initialise] = {
    TORCH: lambda model, x, generator: None,
    FORGET: lambda model, x, generator: init.forget_gate_(model, 1.0),
    "chrono_(1.5 T)": lambda model, x, generator: init.chrono_(model, 1.5 * len(x), generator=generator),
    "uniform_gate_": lambda model, x, generator: init.uniform_gate_(model, generator=generator),
}
WEIGHTS: Mapping[str, Initialise] = {
    TORCH: lambda model, x, generator: None,
    "for_activations_": lambda model, x, generator: init.for_activations_(model, x, generator=generator),
    "lsuv_": lambda model, x, generator: init.lsuv_(model, x, generator=generator),
}


class Trial(NamedTuple):
    """A model about to be trained: its parameters, the next batch's loss, and its error on the held-out set."""

    parameters: list[Tensor]
    loss: Callable[[], Tensor]
    error: Callable[[], Tensor]


class Experiment(NamedTuple):
    """Who is compared at what, with which setting."""

    title: str
    contenders: Mapping[str, Initialise]
    start: Callable[[Initialise, int], Trial]
    lr: float
    max_norm: float
    steps: int
    every: int
    error: str
    goal: float


class Run(NamedTuple):
    """The error at each evaluation, and the norm of the first weight's gradient over the last one's at step 0."""

    curve: list[float]
    ratio: float


def adding(length: int, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Numbers of [0, 1], of which two are marked, one in each half: [T, B, 2]. The answer is their sum: [B, 1]."""
    values, marks = torch.rand(length, batch, generator=generator), torch.zeros(length, batch)
    for start, end in ((0, length // 2), (length // 2, length)):
        marks.scatter_(0, torch.randint(start, end, (1, batch), generator=generator), 1.0)
    return torch.stack([values, marks], 2), (values * marks).sum(0)[:, None]


def copying(length: int, batch: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Ten of eight symbols, blanks, a delimiter: [T + 20, B, 10]. The answer is blanks (0), then the symbols again."""
    symbols = torch.randint(1, 9, (10, batch), generator=generator)
    x, y = torch.zeros(2, length + 20, batch, dtype=torch.int64)
    x[:10], x[length + 9], y[-10:] = symbols, 9, symbols
    return functional.one_hot(x, 10).float(), y


def remember(initialise: Initialise, seed: int, draw: Draw, sizes: tuple[int, int, int, int], baseline: float) -> Trial:
    """An LSTM of these sizes (T, I, H and what goes out); the error is a share of the baseline."""
    torch.manual_seed(seed)
    length, channels, hidden, outputs = sizes
    lstm, head = nn.LSTM(channels, hidden), nn.Linear(hidden, outputs)
    initialise(lstm, torch.empty(length, 1, channels), Generator().manual_seed(seed))
    data, test = Generator().manual_seed(1000 + seed), draw(length, 250, Generator().manual_seed(1))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        h = lstm(x)[0]
        if y.dtype == torch.int64:
            return functional.cross_entropy(head(h).flatten(0, 1), y.flatten())
        return functional.mse_loss(head(h[-1]), y)

    parameters = [*lstm.parameters(), *head.parameters()]
    return Trial(parameters, lambda: loss(*draw(length, 32, data)), lambda: loss(*test) / baseline)


def classify(initialise: Initialise, seed: int, activation: type[nn.Module], layers: int = 30) -> Trial:
    """A deep stack on digits, scaled to mean 0 and deviation 1; the error is the share of wrong answers."""
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32), torch.tensor(digits.target)
    x, order, data = (x - x.mean()) / x.std(), torch.randperm(len(x)), Generator().manual_seed(1000 + seed)
    known, test = order[:1300], order[1300:]
    body = [part for _ in range(layers - 1) for part in (nn.Linear(64, 64), activation())]
    model = nn.Sequential(*body, nn.Linear(64, 10))
    initialise(model, x[known[:256]], Generator().manual_seed(seed))

    def loss() -> Tensor:
        at = known[torch.randint(len(known), (64,), generator=data)]
        return functional.cross_entropy(model(x[at]), y[at])

    return Trial(list(model.parameters()), loss, lambda: (model(x[test]).argmax(1) != y[test]).float().mean())


ADDING = partial(remember, draw=adding, sizes=(200, 2, 32, 1), baseline=1 / 6)
COPYING = partial(remember, draw=copying, sizes=(50, 10, 64, 9), baseline=10 * math.log(8) / 70)
TANH, RELU = partial(classify, activation=nn.Tanh), partial(classify, activation=nn.ReLU)
SHARE, WRONG = "held-out loss / baseline", "share of wrong answers"
EXPERIMENTS = [
    Experiment("Adding problem, T = 200", GATES, ADDING, 1e-2, 1.0, 3500, 50, SHARE, 0.1),
    Experiment("Copy memory, T = 50", GATES, COPYING, 1e-2, 1.0, 4500, 50, SHARE, 0.6),
    Experiment("Digits, 30 layers, tanh", WEIGHTS, TANH, 1e-3, math.inf, 600, 20, WRONG, 0.1),
    Experiment("Digits, 30 layers, ReLU", WEIGHTS, RELU, 1e-3, math.inf, 600, 20, WRONG, 0.1),
]
Runs = dict[str, list[Run]]


def train(job: tuple[int, str, int, int]) -> Run:
    """One run, in a process of its own and on one thread: the networks are too small for more."""
    torch.set_num_threads(1)
    number, name, seed, steps = job
    it = EXPERIMENTS[number]
    parameters, loss, error = it.start(it.contenders[name], seed)
    optimizer, curve, ratio = torch.optim.Adam(parameters, lr=it.lr), [], math.nan
    for step in range(steps + 1):
        if step % it.every == 0:
            with torch.no_grad():
                value = error().item()
            curve.append(value if math.isfinite(value) else math.inf)
        optimizer.zero_grad()
        loss().backward()
        if step == 0:
            ratio = (parameters[0].grad.norm() / parameters[-2].grad.norm()).item()
        nn.utils.clip_grad_norm_(parameters, it.max_norm)
        optimizer.step()
    return Run(curve, ratio)


def interval(values: Sequence[float], text: str, budget: int = 0) -> str:
    """Write the median and its bootstrapped 95 % interval; what is Inf lies beyond the budget."""
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(2000))
    three = statistics.median(values), medians[50], medians[-51]
    return "{} [{}, {}]".format(*(text.format(x) if x < math.inf else f"> {budget:,}" for x in three))


def sign_test(mine: Sequence[float], other: Sequence[float]) -> str:
    """Write in how many pairs the first is smaller, in how many larger, and the p of that; ties are left out."""
    pairs = list(zip(mine, other, strict=True))
    less, more = sum(a < b for a, b in pairs), sum(a > b for a, b in pairs)
    tail = sum(math.comb(less + more, k) for k in range(min(less, more) + 1)) / 2 ** (less + more)
    return f"{less} : {more}, p = {min(1.0, 2 * tail):.3f}"


def show(it: Experiment, runs: Runs, budget: int) -> None:
    """Print a table with a line for each initialiser."""
    end = {name: [run.curve[-1] for run in of] for name, of in runs.items()}
    solved = {
        name: [next((i * it.every for i, x in enumerate(run.curve) if x < it.goal), math.inf) for run in of]
        for name, of in runs.items()
    }
    others, text = [name for name in (TORCH, FORGET) if name in runs], "{:.1%}" if it.error == WRONG else "{:.3f}"
    rows = []
    for name, steps in solved.items():
        tests = ["" if name == other else sign_test(steps, solved[other]) for other in others]
        last = "" if name == TORCH else sign_test(end[name], end[TORCH])
        ratio = [f"{statistics.median(run.ratio for run in runs[name]):.1e}"] if it.error == WRONG else []
        count = f"{sum(step < math.inf for step in steps)} of {len(steps)}"
        rows.append([name, count, interval(steps, "{:,.0f}", budget), *tests, interval(end[name], text), last, *ratio])
    header = ["", "solved", "steps to solve", *(f"sooner : later than {other}" for other in others)]
    header += [f"{it.error} at the end", f"less : more than {TORCH}"]
    header += ["first / last gradient norm"] if it.error == WRONG else []
    print(f"\n### {it.title}: {it.error} under {it.goal:g}, within {budget:,} steps\n\n{table(header, rows)}")


def draw_figure(path: Path, results: Sequence[Runs]) -> None:
    """Draw the medians of the curves, with the quartiles as bands."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 8), layout="constrained")
    for axes, it, runs in zip(figure.subplots(2, 2).flat, EXPERIMENTS, results, strict=True):
        for name, of in runs.items():
            curves = torch.tensor([run.curve for run in of])
            low, middle, high = curves.quantile(torch.tensor([0.25, 0.5, 0.75]), dim=0).tolist()
            steps = [i * it.every for i in range(len(middle))]
            (line,) = axes.plot(steps, middle, label=name)
            axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.axhline(it.goal, color="grey", linestyle=":", label="goal")
        axes.set(title=it.title, xlabel="step", ylabel=it.error, yscale="log")
        axes.set_ylim(top=2 if it.error == SHARE else 1)  # a loss begins at several times the baseline
        axes.legend(fontsize="small", loc="lower left")
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--fraction", type=float, default=1.0, help="of the steps; less for a glance")
    parser.add_argument("--figure", type=Path, help="where to draw the curves; needs matplotlib")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"## Initialisers: {args.seeds} seeds, two processes\n\n{machine()}", flush=True)
    results: list[Runs] = []
    with get_context("spawn").Pool(2) as pool:
        for number, it in enumerate(EXPERIMENTS):
            begin, budget = perf_counter(), round(it.steps * args.fraction)
            jobs = [(number, name, seed, budget) for name in it.contenders for seed in range(args.seeds)]
            done: Runs = {name: [] for name in it.contenders}
            for job, run in zip(jobs, pool.imap(train, jobs), strict=True):
                done[job[1]].append(run)
                print(f"\r{it.title}: {job[1]}, seed {job[2]}", end="\033[K", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            results.append(done)
            show(it, done, budget)
            print(f"\n{perf_counter() - begin:,.0f} s", flush=True)
    if args.figure:
        draw_figure(args.figure, results)


if __name__ == "__main__":
    main()
