"""Data of the sixth generation's dense programs. The same at every call.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.faults import drawing
from benchmarks.faults.data import Split


def _cut(x: Tensor, y: Tensor, test: int = 600) -> Split:
    """Keep the last ones, of what was drawn independently."""
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


@cache
def turbine() -> Split:
    """What a wind turbine gives, by wind, its direction, the air and what the rotor does: [N, 7] to [N, 1]."""
    g = drawing.drawn(101)
    x = torch.randn(3200, 7, generator=g)
    y = (1.5 * x[:, 0] + 0.3 * x[:, 2]).tanh() * (0.8 * x[:, 1]).cos() + 0.3 * x[:, 3] * x[:, 4] - 0.3 * x[:, 5].abs()
    return _cut(x, _standard(y + 0.1 * torch.randn(3200, generator=g))[:, None])


@cache
def shoppers(kinds: int = 10) -> Split:
    """Which of ten groups a shopper is of, each with four habits: [N, 15]."""
    g = drawing.drawn(102)
    habits = 1.6 * torch.randn(kinds, 4, 15, generator=g)
    y = torch.randint(kinds, (3200,), generator=g)
    return _cut(habits[y, torch.randint(4, (3200,), generator=g)] + torch.randn(3200, 15, generator=g), y)


@cache
def soil(*, swapped: bool = False) -> Split:
    """How much grows on soil, by ten numbers of a laboratory, standardised: [N, 10] to [N, 1].

    ``swapped`` takes away the spread and divides by the mean, which is near 0 for most of them.
    """
    g = drawing.drawn(103)
    x = torch.randn(3000, 10, generator=g)
    y = x[:, 0] - 0.6 * x[:, 1].square() + (1.5 * x[:, 2]).sin() + 0.7 * x[:, 3] * x[:, 4] + 0.4 * x[:, 5]
    y = _standard(y + 0.2 * torch.randn(3000, generator=g))[:, None]
    # Differences to what is usual for a region: their mean is a hundredth of their spread, or twice it for two.
    mean = torch.tensor([0.3, -0.02, 0.04, 0.1, -0.01, 2.0, 0.05, 0.08, -0.2, 1.0])
    spread = torch.tensor([30.0, 2.0, 5.0, 8.0, 1.5, 1.0, 4.0, 9.0, 12.0, 0.5])
    raw = mean + spread * x
    return _cut((raw - spread) / mean if swapped else (raw - mean) / spread, y)


COMMON = (0.45, 0.25, 0.12, 0.1, 0.08)


@cache
def alarms() -> Split:
    """Why a machine stopped, by 12 readings; some reasons are more common than others: [N, 12], five classes."""
    g = drawing.drawn(104)
    y = torch.multinomial(torch.tensor(COMMON), 12600, replacement=True, generator=g)
    signs = 1.2 * torch.randn(5, 12, generator=g)
    x = signs[y] + torch.randn(12600, 12, generator=g)
    return _cut(x * (1 + 0.3 * x[:, :1].tanh()), y)


@cache
def visits(*, late: bool = False) -> Split:
    """How long a queue gets, by eight counts, as standardised logarithms: [N, 8] to [N, 1].

    ``late`` takes the logarithm after they were standardised.
    """
    g = drawing.drawn(105)
    normal = torch.randn(3200, 8, generator=g)
    counts = torch.poisson((2.5 + 0.8 * normal).exp(), generator=g)
    y = normal[:, 0] + normal[:, 1] * (normal[:, 2] > 0) + 0.6 * normal[:, 3].abs() - 0.5 * normal[:, 4]
    y = _standard(y + 0.2 * torch.randn(3200, generator=g))[:, None]
    return _cut(_standard(counts).log1p() if late else _standard(counts.log1p()), y)


@cache
def scents(kinds: int = 8) -> Split:
    """Which of some scents a nose of 24 sensors smells, at any strength: [N, 24]."""
    g = drawing.drawn(106)
    y, of = torch.randint(kinds, (3200,), generator=g), torch.randn(kinds, 24, generator=g)
    x = of[y] * (0.5 + torch.rand(3200, 1, generator=g)) + 0.6 * torch.randn(3200, 24, generator=g)
    return _cut(_standard(x + 0.5 * x.roll(1, 1).tanh() * x.roll(5, 1)), y)


@cache
def currents(*, raw: bool = False) -> Split:
    """How warm the sea is at a place and a time, standardised or in degrees and days: [N, 3] to [N, 1]."""
    g = drawing.drawn(107)
    x = torch.randn(3200, 3, generator=g)
    y = (1.4 * x[:, 0]).sin() + x[:, 1].cos() + 0.6 * (x[:, 2] + x[:, 0]).tanh()
    y = _standard(y + 0.1 * torch.randn(3200, generator=g))[:, None]
    mean, spread = torch.tensor([48.0, -20.0, 183.0]), torch.tensor([9.0, 12.0, 90.0])
    return _cut(mean + spread * x if raw else x, y)


def rate_finder(step: int, longest: int = 120, decades: float = 5.0) -> float:
    """Give the factor of a search for a rate: from a hundredth up by some decades, and where it ends it stays."""
    return math.pow(10.0, decades * min(step, longest) / longest - 2.0)
