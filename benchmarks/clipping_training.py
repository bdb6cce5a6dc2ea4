"""Training in which gradients go wrong: with corrupted inputs, and with a learning rate that is too high.

For each seed all contenders start from the same weights and see the same batches. Their settings are the defaults, or
what is customary (norm 1, value 0.1), the same in all tasks; nobody was tuned. The learning rate that is too high is
the smallest of 0.01, 0.02, 0.05, 0.1, 0.2 and 0.5 at which most runs without clipping fail.
"""

from __future__ import annotations

import logging
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.timing import table
from gradguard import Guard
from gradguard.clip import AGC, AdaGC, AutoClip, GradientStabilizer, NormBand, NormClip, ValueClip, ZClip
from gradguard.clip import AbstractRescaler as Clipper

CLIPPERS: dict[str, Callable[[], Clipper | None]] = {
    "no clipping": lambda: None,
    "NormClip(1.0)": lambda: NormClip(1.0),
    "ValueClip(-0.1, 0.1)": lambda: ValueClip(-0.1, 0.1),
    "AGC(0.01), not the head": lambda: AGC(0.01, exclude=("head",)),
    "AutoClip(10)": lambda: AutoClip(10.0),
    "ZClip()": ZClip,
    "AdaGC()": AdaGC,
    "NormBand(0.1, 1.0)": lambda: NormBand(0.1, 1.0),
    "GradientStabilizer()": GradientStabilizer,
}


class Result(NamedTuple):
    """Of one run: loss and share of wrong answers on the test set, Inf where it has none; share of steps changed."""

    loss: float
    wrong: float
    clipped: float


class Metric(NamedTuple):
    """What a run is judged by, and from where on it counts as failed."""

    name: str
    error: Callable[[Result], float]
    failed: float
    text: str


MSE = Metric("test MSE", lambda result: result.loss, 1.0, "{:.4f}")  # 1 is that of the mean as the answer
WRONG = Metric("share of wrong answers", lambda result: result.wrong, 0.5, "{:.1%}")


class Task(NamedTuple):
    """What is learnt, for one seed."""

    model: nn.Module
    optimizer: Callable[..., torch.optim.Optimizer]
    batches: list[tuple[Tensor, Tensor]]
    loss: Callable[[Tensor, Tensor], Tensor]
    test: tuple[Tensor, Tensor]


def series(channels: int = 6, length: int = 4000) -> Tensor:
    """Channels that mix eight waves and a slow noise, each of mean 0 and deviation 1, [length, channels]."""
    time = torch.arange(length)[:, None]
    waves = torch.sin(2 * math.pi * (time / (8 + 120 * torch.rand(8)) + torch.rand(8)))
    noise = torch.zeros(length, channels)
    for i in range(1, length):
        noise[i] = 0.9 * noise[i - 1] + 0.2 * torch.randn(channels)
    mixed = waves @ torch.randn(8, channels) + noise
    return (mixed - mixed.mean(0)) / mixed.std(0)


def batches(x: Tensor, y: Tensor, size: int, steps: int) -> list[tuple[Tensor, Tensor]]:
    """Batches in random order, anew in each epoch."""

    def forever() -> Iterator[Tensor]:
        while True:
            yield from torch.randperm(len(x)).split(size)[: len(x) // size]

    order = forever()
    return [(x[at], y[at]) for at in (next(order) for _ in range(steps))]


def corrupted(seed: int, level: float, window: int = 32, horizon: int = 8) -> Task:
    """Forecast from a window of which 5 % have noise on them, ``level`` times as large as the largest value."""
    torch.manual_seed(seed)
    values = series().unfold(0, window + horizon, 1)
    x, y = values[..., :window].flatten(1), values[..., window:].flatten(1)
    known = 3 * len(x) // 4
    test = x[known + window :], y[known + window :]
    x, y = x[:known].clone(), y[:known]
    bad = torch.randperm(known)[: known // 20]
    x[bad] += level * x.abs().max() * torch.randn(len(bad), x.shape[1])
    model = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    model.head = nn.Linear(128, y.shape[1])
    return Task(model, partial(torch.optim.Adam, lr=1e-3), batches(x, y, 16, 1000), functional.mse_loss, test)


class Deep(nn.Module):
    """Ten layers without normalisation; He's initialisation keeps the variance of their activations."""

    def __init__(self, width: int = 64, depth: int = 10) -> None:
        super().__init__()
        layers = [nn.Linear(64 if i == 0 else width, width) for i in range(depth)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
        self.body = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


def too_fast(seed: int, lr: float) -> Task:
    """Digits, with SGD whose steps are too long."""
    torch.manual_seed(seed)
    digits = load_digits()
    x, y = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(x))
    known, test = order[:1300], order[1300:]
    sgd, drawn = partial(torch.optim.SGD, lr=lr, momentum=0.9), batches(x[known], y[known], 64, 600)
    return Task(Deep(), sgd, drawn, functional.cross_entropy, (x[test], y[test]))


def train(task: Task, clipper: Clipper | None) -> Result:
    """One run. How often it is clipped is counted from outside, by the norm before and after."""
    model, norms = task.model, []
    optimizer = task.optimizer(model.parameters())

    def note(*_: object) -> None:
        norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]))

    optimizer.register_step_pre_hook(note)
    with Guard(model, optimizer, clip=clipper):
        optimizer.register_step_pre_hook(note)
        for x, y in task.batches:
            optimizer.zero_grad()
            task.loss(model(x), y).backward()
            optimizer.step()
    before, after = torch.stack(norms).view(-1, 2).unbind(1)
    x, y = task.test
    with torch.no_grad():
        answer = model(x)
        loss = task.loss(answer, y).item()
    wrong = (answer.argmax(1) != y).float().mean().item() if y.dtype == torch.int64 else math.nan
    changed = ((after / before - 1).abs() > 1e-5).float().mean().item()
    return Result(loss if math.isfinite(loss) else math.inf, wrong, changed)


def interval(values: Sequence[float], text: str) -> str:
    """Write the median, and the interval of at least 95 % that the sign test gives for it; all of few values."""
    ordered, n = sorted(values), len(values)
    tails = [sum(math.comb(n, i) for i in range(k + 1)) / 2**n for k in range(n)]
    k = max(1, sum(tail <= 0.025 for tail in tails))
    middle, low, high = (text.format(x) for x in (statistics.median(ordered), ordered[k - 1], ordered[n - k]))
    return f"{middle} [{low}, {high}]"


def compare(title: str, make: Callable[[int], Task], seeds: int, metric: Metric) -> None:
    """Print a line for each contender."""
    results: dict[str, list[Result]] = {}
    for name, clipper in CLIPPERS.items():
        print(f"\r{title}: {name}", end="\033[K", file=sys.stderr, flush=True)
        results[name] = [train(make(seed), clipper()) for seed in range(seeds)]
    print(file=sys.stderr)
    plain, lines = [metric.error(result) for result in results["no clipping"]], []
    for name, runs in results.items():
        errors = [metric.error(result) for result in runs]
        ratios = [
            mine / other if other < math.inf else float(mine == math.inf)
            for mine, other in zip(errors, plain, strict=True)
        ]
        failed = sum(error > metric.failed for error in errors)
        rate = statistics.median(result.clipped for result in runs)
        lines.append([name, interval(errors, metric.text), f"{failed}", interval(ratios, "{:.3f}"), f"{rate:.0%}"])
    print(f"\n### {title}, {seeds} seeds\n")
    header = f"median {metric.name} [95 %]", "failed", "/ without clipping, median [95 %]", "steps changed"
    print(table(["", *header], lines))


def run(seeds: int) -> None:
    """Print both tasks. One thread: the networks are too small for more, and sums keep their order."""
    logging.getLogger("gradguard").setLevel(logging.CRITICAL)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    print("\n## Training: one thread; intervals of the sign test")
    for level in (1.0, 3.0):
        compare(f"5 % of the inputs with noise {level:g} x as large", partial(corrupted, level=level), seeds, MSE)
    compare("SGD, learning rate 0.1", partial(too_fast, lr=0.1), seeds, WRONG)
    torch.set_num_threads(threads)
