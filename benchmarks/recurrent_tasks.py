"""Recurrent cells at work: the adding problem, digits read pixel by pixel, ten times the learning rate, batch norm.

Within a part all cells see the same batches of a seed, with one setting for all; numbers are medians over the seeds,
with the range. Sizes are chosen for half an hour on two cores, so that what stands beside the published outcomes is
smaller than what was published: whether the order of cells is the same is the question, not whether the numbers are.

Adding (Hochreiter and Schmidhuber 1997): two marked numbers of T are to be added up. A run has solved it, and ends, at
the first evaluation at which its squared error on a held-out set is under 0.0167, a tenth of what one has who always
says 1. 32 units, or two layers of 64 IndRNN units, which have as many parameters as the LSTM; Adam at 0.01, at T = 1000
at 0.001 and with a tenth of the input weights, the gradient clipped to norm 1, batches of 32. "No bound" is an IndRNN
whose bound is so large that it never acts: once with the weights that the bounded one begins with, once with u drawn
from N(0, 1), as libraries do that know no bound.
Digits: scikit-learn's 8 x 8 images as 64 steps of one pixel, 1,300 to train on, 497 held out; batches of 64, 64 units,
two layers of IndRNN; Adam at 0.01, of IndRNN at 0.003, since at 0.01 its ReLUs die; the gradient clipped to norm 1,
except where the learning rate is what is asked. The statistics of a BatchNormLSTM are taken anew before evaluation,
over twenty batches.
A run diverges if its loss stops being finite, or at the end is above that of one who knows nothing, log 10.
"""

from __future__ import annotations

import argparse
import inspect
import math
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing import get_context
from time import perf_counter
from typing import Any, NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Generator, Tensor, nn
from torch.nn import functional

from benchmarks.initialisation import adding
from benchmarks.recurrent import CLASSES
from benchmarks.timing import machine, table
from gradguard import nn as gnn

Make = Callable[[int, int], nn.Module]  # of the width of the input, and T
NO_BOUND: Mapping[str, Any] = {"length": 1, "gamma": 1e6}


class Contender(NamedTuple):
    """Who takes part, at which learning rate, and what was published of it."""

    make: Make
    lr: float = 1e-2
    published: str = ""


class Trial(NamedTuple):
    """A model about to be trained: the next batch's loss, and its error on the held-out set."""

    model: Last
    loss: Callable[[], Tensor]
    error: Callable[[], Tensor]


class Part(NamedTuple):
    """Who is compared at what; without a goal, all train for as long."""

    title: str
    published: str
    contenders: Mapping[str, Contender]
    start: Callable[[Make, int], Trial]
    seeds: int
    steps: int
    every: int
    goal: float = -math.inf
    max_norm: float = 1.0


class Run(NamedTuple):
    """What came out: the step of the last evaluation, its error, the loss of the last steps, and what it took."""

    step: int
    error: float
    loss: float
    seconds: float
    parameters: int


class Last(nn.Module):
    """What a head makes of the last output."""

    def __init__(self, make: Make, seed: int, *, width: int, length: int, outputs: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.recurrent = make(width, length)
        torch.manual_seed(seed)
        self.head = nn.Linear(self.recurrent.hidden_size, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0][-1])


def cell(kind: type[nn.Module], hidden: int, layers: int = 1, **settings: Any) -> Make:
    """Make one; what counts the steps is told how many there are."""

    def make(width: int, length: int) -> nn.Module:
        known = {name: length for name in ("length", "max_steps") if name in inspect.signature(kind).parameters}
        return kind(width, hidden, layers, **known | settings)

    return make


def same_start(width: int, length: int) -> nn.Module:
    """Without a bound, but with the weights of one that has it."""
    weights = cell(gnn.IndRNN, 64, 2)(width, length).state_dict()
    rnn = cell(gnn.IndRNN, 64, 2, **NO_BOUND)(width, length)
    rnn.load_state_dict(weights)
    return rnn


def normal_start(width: int, length: int) -> nn.Module:
    """Without a bound, with u from N(0, 1)."""
    rnn = same_start(width, length)
    for name, param in rnn.named_parameters():
        if name.startswith("weight_hh"):
            nn.init.normal_(param)
    return rnn


def smaller(make: Make) -> Make:
    """With a tenth of the input weights: at first, a unit that keeps everything adds up T of them."""

    def made(width: int, length: int) -> nn.Module:
        rnn = make(width, length)
        for name, param in rnn.named_parameters():
            if name.startswith("weight_ih"):
                nn.init.uniform_(param, -0.1 * rnn.hidden_size**-0.5, 0.1 * rnn.hidden_size**-0.5)
        return rnn

    return made


def add_up(make: Make, seed: int, length: int) -> Trial:
    """The adding problem."""
    model = Last(make, seed, width=2, length=length, outputs=1)
    data, test = Generator().manual_seed(1000 + seed), adding(length, 250, Generator().manual_seed(1))

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return functional.mse_loss(model(x), y)

    return Trial(model, lambda: loss(*adding(length, 32, data)), lambda: loss(*test))


def read(make: Make, seed: int) -> Trial:
    """Digits pixel by pixel; the error is the share of wrong answers."""
    digits, data = load_digits(), Generator().manual_seed(1000 + seed)
    x, y = torch.tensor(digits.data.T[..., None], dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(y), generator=data)
    known, test = order[:1300], order[1300:]
    model = Last(make, seed, width=1, length=64, outputs=10)

    def loss() -> Tensor:
        at = known[torch.randint(len(known), (64,), generator=data)]
        return functional.cross_entropy(model(x[:, at]), y[at])

    return Trial(model, loss, lambda: (model(x[:, test]).argmax(1) != y[test]).float().mean())


INDEPENDENT: Mapping[str, Contender] = {
    "IndRNN": Contender(cell(gnn.IndRNN, 64, 2), published="128 units solve it at T = 100, 500, 1000 and 5000 (1)"),
    "IndRNN, no bound": Contender(same_start),
    "IndRNN, no bound, u ~ N(0, 1)": Contender(normal_start),
}
ADDING = INDEPENDENT | {
    "LSTM": Contender(cell(gnn.LSTM, 32), published="does not converge at T = 1000 (1)"),
    "LayerNormLSTM": Contender(cell(gnn.LayerNormLSTM, 32), published="less training time, on other tasks (2)"),
    "GRU": Contender(cell(gnn.GRU, 32)),
    "MUT1": Contender(cell(gnn.MUT1, 32), published="better than LSTM and GRU on some tasks, not on all (3)"),
}
SEEN = {
    "LSTM": "98.2 % (1), 98.5 % (4)",
    "IndRNN": "99.0 %, six layers (1)",
    "JANET": "99.0 % (4)",
    "BatchNormLSTM": "95.4 % with the pixels permuted, where an LSTM has 88 % (1)",
}
READING = {name: Contender(cell(kind, 64), published=SEEN.get(name, "")) for name, kind in CLASSES.items()}
READING["IndRNN"] = Contender(cell(gnn.IndRNN, 64, 2), 3e-3, SEEN["IndRNN"])
RATES = {
    f"{kind.__name__}, {rate:g}": Contender(cell(kind, 64), rate)
    for kind in (gnn.LSTM, gnn.LayerNormLSTM)
    for rate in (1e-2, 1e-1)
}
GAINS = {f"gain {gain:g}": Contender(cell(gnn.BatchNormLSTM, 64, gain=gain)) for gain in (0.1, 1.0)}
SOURCES = """(1) Li et al. 2018, arXiv 1803.04831, section 5.1 and figure 2; 2019, arXiv 1910.06251, table 2.
(2) Ba et al. 2016, arXiv 1607.06450, abstract. (3) Jozefowicz et al. 2015, abstract. (4) van der Westhuizen and Lasenby
2018, arXiv 1804.04849, abstract. (5) Cooijmans et al. 2017, arXiv 1603.09025, section 4.
(6) github.com/batzner/indrnn, pull request 4."""
PARTS = {
    "adding": Part(
        "Adding problem, T = 200",
        "IndRNN with |u| <= 2^(1/T) solves T = 100 and 500 (1), a public copy within about 1,500 and 2,500 steps (6)",
        ADDING,
        partial(add_up, length=200),
        seeds=3,
        steps=2500,
        every=50,
        goal=0.0167,
    ),
    "long": Part(
        "Adding problem, T = 1000",
        "IndRNN converges, LSTM and IRNN do not (1)",
        {name: who._replace(make=smaller(who.make), lr=1e-3) for name, who in INDEPENDENT.items()},
        partial(add_up, length=1000),
        seeds=3,
        steps=3000,
        every=50,
        goal=0.0167,
    ),
    "digits": Part(
        "Digits as 64 steps of a pixel, all cells",
        "none for these digits; the column has accuracies on sequential MNIST, 784 steps, trained to the end",
        READING,
        read,
        seeds=2,
        steps=500,
        every=500,
    ),
    "rate": Part(
        "Digits at ten times the learning rate, without clipping",
        "no number; layer normalisation stabilises the hidden state's dynamics and makes training faster (2)",
        RATES,
        read,
        seeds=5,
        steps=500,
        every=500,
        max_norm=math.inf,
    ),
    "batch_norm": Part(
        "Digits, the gain of batch norm at first",
        "with a gain of 1 tanh is saturated and the gradient vanishes; 0.1 trains well (5)",
        GAINS,
        read,
        seeds=3,
        steps=500,
        every=500,
    ),
}


def train(job: tuple[str, str, int, int]) -> Run:
    """One run, in a process of its own and on one thread: the networks are too small for more."""
    torch.set_num_threads(1)
    key, name, seed, steps = job
    part, who = PARTS[key], PARTS[key].contenders[name]
    model, loss, error = part.start(who.make, seed)
    optimizer, losses, begin = torch.optim.Adam(model.parameters(), lr=who.lr), [], perf_counter()
    for step in range(steps + 1):
        if step and (step % part.every == 0 or step == steps):
            with torch.no_grad():
                value = error_of(model, loss, error)
            if value < part.goal or step == steps:
                break
        optimizer.zero_grad()
        now = loss()
        losses.append(now.item())
        if not math.isfinite(losses[-1]):
            value = math.nan
            break
        now.backward()
        nn.utils.clip_grad_norm_(model.parameters(), part.max_norm)
        optimizer.step()
    seconds, count = (perf_counter() - begin) / max(step, 1), sum(p.numel() for p in model.parameters())
    return Run(step, value, statistics.fmean(losses[-50:]), seconds, count)


def error_of(model: Last, loss: Callable[[], Tensor], error: Callable[[], Tensor]) -> float:
    """The error as it is in evaluation; statistics of batches are taken anew, over twenty of them."""
    if isinstance(model.recurrent, gnn.BatchNormLSTM):
        with model.recurrent.population_statistics():
            for _ in range(20):
                loss()
    model.eval()
    value = error().item()
    model.train()
    return value


def spread(values: Sequence[float], text: str) -> str:
    """Write the median and the range; a NaN is worse than any number."""
    values = sorted(math.inf if math.isnan(value) else value for value in values)
    middle, low, high = (text.format(x) for x in (statistics.median_high(values), values[0], values[-1]))
    return f"{middle} ({low} to {high})"


def show(part: Part, results: Mapping[str, list[Run]], steps: int) -> None:
    """Print a table with a line for each contender."""
    rows, races = [], part.goal > -math.inf
    for name, runs in results.items():
        row, solved = [name, f"{runs[0].parameters:,}"], [run.error < part.goal for run in runs]
        if races:
            taken = [run.step if done else math.inf for run, done in zip(runs, solved, strict=True)]
            row += [f"{sum(solved)} of {len(runs)}", spread(taken, "{:,.0f}").replace("inf", f"> {steps:,}")]
            row += [spread([6 * run.error for run in runs], "{:.3g}")]
            lost = [not math.isfinite(run.loss) for run in runs]
        else:
            row += [spread([100 * run.error for run in runs], "{:.1f}"), spread([run.loss for run in runs], "{:.3f}")]
            lost = [not run.loss < math.log(10) for run in runs]
        row += [f"{sum(lost)} of {len(runs)}", spread([1e3 * run.seconds for run in runs], "{:.0f}")]
        rows.append([*row, part.contenders[name].published])
    header = ["", "parameters"]
    header += ["solved", "steps to solve", "held-out error / 0.167 at the end"] if races else ["wrong, %", "loss"]
    header += ["diverged", "ms a step", "published"]
    print(f"\n### {part.title}, {steps:,} steps\n\nPublished: {part.published}.\n\n{table(header, rows)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--seeds", type=int, help="rather than each part's own number")
    parser.add_argument("--fraction", type=float, default=1.0, help="of the steps; less for a glance")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"## Recurrent cells at work: two processes\n\n{machine()}\n\n{SOURCES}", flush=True)
    with get_context("spawn").Pool(2) as pool:
        for key, part in PARTS.items():
            if args.only not in (None, key):
                continue
            begin, steps = perf_counter(), round(part.steps * args.fraction)
            jobs = [(key, name, k, steps) for name in part.contenders for k in range(args.seeds or part.seeds)]
            results: dict[str, list[Run]] = {name: [] for name in part.contenders}
            for (_, name, seed, _), run in zip(jobs, pool.imap(train, jobs), strict=True):
                results[name].append(run)
                print(f"\r{part.title}: {name}, seed {seed}", end="\033[K", file=sys.stderr, flush=True)
            print(file=sys.stderr)
            show(part, results, steps)
            print(f"\n{perf_counter() - begin:,.0f} s", flush=True)


if __name__ == "__main__":
    main()
