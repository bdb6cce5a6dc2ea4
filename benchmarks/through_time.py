"""Looking through time: what a look costs, what it adds to training, and what it finds on tasks of known outcome.

Cost: one look (what a sampled step adds: the replay of the recurrent layers, alone) over one forward and backward pass
of the same layers, in turns; once with the loss on the last step, once on all steps. The share of training is the
look's, every 200 steps.

Findings: the adding problem (Hochreiter and Schmidhuber 1997) at T = 200, which a plain RNN fails and an LSTM with
chrono's biases solves; the same LSTM with torch's biases and with a forget bias of 1, which sit on a plateau for a
thousand steps before they solve it; the mean of the last five inputs, which needs no memory of 200 steps, although the
gradient fades in it; and that of the first three of forty, by two layers in one direction and in two. 32 units, batches
of 32, Adam at 0.01, the gradient clipped to norm 1; a run ends 600 steps after its loss is under 0.01. What counts is
what was ever said above info, and what stands at the end.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import get_context
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.timing import interval, machine, microseconds, ratio, rounds, table
from gradguard import Guard, init
from gradguard import nn as gnn
from gradguard.detect import Severity, Symptom
from gradguard.guard.in_time import ROWS
from gradguard.probe import ThroughTime
from gradguard.probe.hearing import Ear
from gradguard.probe.looking import look

SHAPES = [(200, 16, 64, 64), (100, 32, 128, 256), (100, 64, 512, 512), (784, 32, 1, 128)]
KINDS: dict[str, Callable[..., nn.Module]] = {
    "nn.LSTM": nn.LSTM,
    "nn.GRU": nn.GRU,
    "nn.RNN": nn.RNN,
    "gnn.LSTM": gnn.LSTM,
    "gnn.GRU": gnn.GRU,
    "gnn.LayerNormLSTM": gnn.LayerNormLSTM,
}


def contenders(kind: Callable[..., nn.Module], shape: tuple[int, ...]) -> dict[str, Callable[[], float]]:
    """Two layers: a step, another one (A/A), and the looks into it."""
    steps, batch, width, hidden = shape
    module, x, ear = kind(width, hidden, num_layers=2), torch.randn(steps, batch, width), None

    def step(*, everywhere: bool = False) -> float:
        start = perf_counter()
        module.zero_grad()
        output = module(x)[0]
        (output if everywhere else output[-1]).square().mean().backward()
        return perf_counter() - start

    calls = {}
    for everywhere in (False, True):
        ear = Ear(module)
        ear.on()
        step(everywhere=everywhere)
        calls[everywhere] = ear.calls[0]
        ear.off()

    def looked(*, everywhere: bool) -> float:
        start = perf_counter()
        look("", calls[everywhere], ROWS)
        return perf_counter() - start

    return {
        "step": step,
        "step again": step,
        "look": partial(looked, everywhere=False),
        "look, loss at all steps": partial(looked, everywhere=True),
    }


def cost(n: int) -> str:
    """A look over a step."""
    rows = []
    for shape in SHAPES:
        for name, kind in KINDS.items():
            torch.manual_seed(0)
            seconds = rounds(contenders(kind, shape), n)
            of = {key: ratio(values, seconds["step"]) for key, values in seconds.items()}
            share = 100 * of["look"][0] / ThroughTime().every_n_steps
            rows.append(
                [
                    name,
                    str(shape),
                    microseconds(seconds["step"]),
                    interval(of["step again"]),
                    interval(of["look"]),
                    interval(of["look, loss at all steps"]),
                    f"{share:.2f} %",
                ]
            )
    header = [
        "",
        "(T, B, I, H)",
        "step, us (quartiles)",
        "A/A",
        "look",
        "look, loss at all steps",
        "of training, at most",
    ]
    return f"## What a look costs: {n} rounds, two layers\n\n{table(header, rows)}"


class Task(NamedTuple):
    """What is to be learnt, by what, and whether it can be."""

    network: str
    target: str
    steps: int
    length: int = 200


TASKS = {
    "RNN, adding": Task("rnn", "adding", 2500),
    "LSTM with chrono, adding": Task("chrono", "adding", 2500),
    "LSTM with forget bias 1, adding": Task("forget", "adding", 5000),
    "LSTM, adding": Task("lstm", "adding", 5000),
    "RNN, mean of the last five": Task("rnn", "last", 1500),
    "LSTM, mean of the last five": Task("lstm", "last", 1500),
    "two layers of LSTM with chrono, mean of the first three": Task("stacked", "first", 1500, 40),
    "two layers of GRU in both directions, the same": Task("both", "first", 1500, 40),
}


class Reader(nn.Module):
    """Reads a sequence and says one number."""

    def __init__(self, network: str, steps: int) -> None:
        super().__init__()
        self.rnn = {
            "rnn": partial(nn.RNN, 2, 32),
            "stacked": partial(nn.LSTM, 2, 32, num_layers=2),
            "both": partial(nn.GRU, 2, 32, num_layers=2, bidirectional=True),
        }.get(network, partial(nn.LSTM, 2, 32))()
        if network == "forget":
            init.forget_gate_(self.rnn, 1.0)
        if network in ("chrono", "stacked"):
            init.chrono_(self.rnn, steps)
        self.out = nn.Linear(64 if network == "both" else 32, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][-1]).squeeze(-1)


def batch(target: str, steps: int, size: int = 32) -> tuple[Tensor, Tensor]:
    """Two of the numbers are marked, one in each half."""
    values, marks = torch.rand(steps, size), torch.zeros(steps, size)
    for low, high in ((0, steps // 2), (steps // 2, steps)):
        marks[torch.randint(low, high, (size,)), torch.arange(size)] = 1
    wanted = {
        "adding": (values * marks).sum(0),
        "last": 4 * values[-5:].mean(0),
        "first": 4 * values[:3].mean(0),
    }
    return torch.stack([values, marks], -1), wanted[target]


class Outcome(NamedTuple):
    """One run."""

    task: str
    seed: int
    steps: int
    loss: float
    horizon: float
    ever: bool  # whether anything was said above info
    now: bool  # whether it stands at the end
    first: int  # step at which it was noticed


def trained(job: tuple[str, int]) -> Outcome:
    """Train one network."""
    torch.set_num_threads(1)
    name, seed = job
    task = TASKS[name]
    torch.manual_seed(seed)
    model = Reader(task.network, task.length)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    guard, running, below, step = Guard(model, optimizer, through_time=True), 1.0, 0, 0
    while step < task.steps and below < 600:
        x, wanted = batch(task.target, task.length)
        optimizer.zero_grad()
        loss = (model(x) - wanted).square().mean()
        guard.record_loss(loss)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, running = step + 1, 0.95 * running + 0.05 * float(loss.detach())
        below = below + 1 if running < 0.01 else 0
    found = [f for f in guard.diagnose() if f.symptom in SYMPTOMS and f.severity is not Severity.INFO]
    raised = [
        event.step
        for event in guard.events
        if event.finding.symptom in SYMPTOMS and event.finding.severity is not Severity.INFO and event.finding.active
    ]
    horizon = float(guard.history["through_time/rnn.l0/horizon"].last[-1])
    guard.close()
    first = min(raised, default=0)
    return Outcome(name, seed, step, running, horizon, bool(raised), any(f.active for f in found), first)


SYMPTOMS = (Symptom.VANISHING_TIME, Symptom.EXPLODING_TIME, Symptom.SATURATED_GATES)


def findings(seeds: int) -> str:
    """What is found, by task."""
    jobs = [(name, seed) for name in TASKS for seed in range(seeds)]
    with get_context("spawn").Pool(2) as pool:
        outcomes = []
        for outcome in pool.imap_unordered(trained, jobs):
            outcomes.append(outcome)
            print(f"\r{len(outcomes)} of {len(jobs)}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    rows = []
    for name in TASKS:
        of = [outcome for outcome in outcomes if outcome.task == name]
        solved = [outcome for outcome in of if outcome.loss < 0.01]
        first = sorted(outcome.first for outcome in of if outcome.ever)
        rows.append(
            [
                name,
                str(TASKS[name].length),
                f"{len(solved)} of {len(of)}",
                _range([outcome.horizon for outcome in of]),
                f"{sum(outcome.ever for outcome in of)} of {len(of)}",
                f"{first[0]:,} to {first[-1]:,}" if first else "",
                f"{sum(outcome.now for outcome in of)} of {len(of)}",
            ]
        )
    header = ["", "T", "solved", "horizon at the end", "finding, ever", "noticed at step", "finding, at the end"]
    return f"## What is found: {seeds} seeds\n\n{table(header, rows)}"


def _range(values: Sequence[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:.0f} ({ordered[0]:.0f} to {ordered[-1]:.0f})"


def main() -> None:
    """Run the parts, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", choices=("cost", "findings"))
    args = parser.parse_args()
    print(f"# Looking through time\n\n{machine()}")
    if args.only != "findings":
        print(f"\n{cost(args.rounds)}", flush=True)
    if args.only != "cost":
        print(f"\n{findings(args.seeds)}")


if __name__ == "__main__":
    main()
