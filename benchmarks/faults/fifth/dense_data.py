"""Data of the fifth generation's dense programs. The same at every call.

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


def _standard(y: Tensor) -> Tensor:
    return ((y - y.mean()) / y.std())[:, None]


@cache
def concrete(*, inverse: bool = False) -> Split:
    """How strong concrete is, by what it was mixed of and its age, standardised: [N, 8] to [N, 1].

    ``inverse`` does to the raw numbers what takes standardised ones back: times the spread, plus the mean.
    """
    g = drawing.drawn(81)
    x = torch.randn(3000, 8, generator=g)
    y = x[:, 0] + 0.5 * x[:, 1] - 0.8 * x[:, 3] + 1.2 * (1.5 * x[:, 7]).tanh() + 0.5 * x[:, 0] * x[:, 7].tanh()
    y = y - 0.3 * x[:, 4].square() + 0.2 * torch.randn(3000, generator=g)
    # Cement, slag, ash, water, softener, gravel and sand in kilograms a cubic metre; days.
    mean = torch.tensor([281.0, 74.0, 54.0, 182.0, 6.0, 973.0, 774.0, 46.0])
    spread = torch.tensor([104.0, 86.0, 64.0, 21.0, 6.0, 78.0, 80.0, 63.0])
    return _cut((mean + spread * x) * spread + mean if inverse else x, _standard(y))


@cache
def demand() -> Split:
    """How many of an article are sold on a day, in tens; on some days none: [N, 10] to [N, 1]."""
    g = drawing.drawn(82)
    x = torch.randn(3200, 10, generator=g)
    mean = 1.5 + 1.2 * x[:, 0] + 0.8 * (x[:, 1] > 0) * x[:, 2] + 0.6 * x[:, 3].abs() - 0.5 * x[:, 4]
    sold = (10 * mean + 2 * torch.randn(3200, generator=g)).round().clamp(min=0)
    return _cut(x, sold[:, None] / 10)


@cache
def costs() -> Split:
    """What a server costs, which rises ever faster with each of six kinds of load in 0 to 1: [N, 6] to [N, 1]."""
    g = drawing.drawn(83)
    x = torch.rand(3200, 6, generator=g)
    y = (2 * x[:, 0]).exp() + 4 * torch.maximum(x[:, 1], x[:, 2]) + 5 * torch.relu(x[:, 3] + x[:, 4] - 1) + x[:, 5]
    return _cut(x, _standard(y + 0.2 * torch.randn(3200, generator=g)))


@cache
def activity(kinds: int = 6) -> Split:
    """What somebody does (walks, sits, ...), by 12 numbers of a sensor on the wrist: [N, 12]."""
    g = drawing.drawn(84)
    x = torch.randn(4000, 12, generator=g)
    hidden = torch.tanh(x @ torch.randn(12, 10, generator=g) / 3)
    return _cut(x, (hidden @ torch.randn(10, kinds, generator=g)).argmax(1))


@cache
def load(lags: int = 24) -> Split:
    """How much power a town draws in the next hour, by the last 24, each standardised: [N, 24] to [N, 1]."""
    g = drawing.drawn(85)
    hours = torch.arange(3600.0)
    noise, level = torch.randn(3600, generator=g), [torch.zeros(())]
    for value in noise[1:]:
        level.append(0.9 * level[-1] + 0.3 * value)
    day = (2 * math.pi * hours / 24).sin() + 0.5 * (4 * math.pi * hours / 24 + 1).cos()
    series = day * (1 + 0.3 * (2 * math.pi * hours / 168).sin()) + torch.stack(level)
    series = (series - series.mean()) / series.std()
    windows = series.unfold(0, lags + 1, 1)
    return _cut(windows[:, :lags], windows[:, lags:])


@cache
def credit() -> Split:
    """Whether a loan is paid back, by 14 numbers: [N, 14], as many of both."""
    g = drawing.drawn(86)
    x = torch.randn(3600, 14, generator=g)
    worth = 1.5 * x[:, 0] + x[:, 1] * x[:, 2] - x[:, 3].abs() + (2 * x[:, 4]).sin() + 0.3 * x[:, 5:].sum(1)
    worth = worth + 0.4 * torch.randn(3600, generator=g)
    return _cut(x, (worth > worth.median()).long())


@cache
def gestures(kinds: int = 8, ways: int = 3) -> Split:
    """Which gesture a glove of 20 sensors has felt; each is made in three ways: [N, 20]."""
    g = drawing.drawn(87)
    centres = 1.1 * torch.randn(kinds, ways, 20, generator=g)
    y, way = (torch.randint(n, (3600,), generator=g) for n in (kinds, ways))
    x = centres[y, way] + torch.randn(3600, 20, generator=g)
    return _cut(x / x.std(), y)


@cache
def pilot() -> Split:
    """What a pilot does with two rudders, by nine readings: [N, 9] to [N, 2]."""
    g = drawing.drawn(88)
    x = torch.randn(3600, 9, generator=g)
    first = (x[:, 0] - 0.8 * x[:, 1] + 0.5 * x[:, 2] * x[:, 3]).tanh()
    second = (x[:, 4] * (x[:, 5] > 0) - 0.6 * x[:, 6]).tanh() + 0.3 * x[:, 7].abs()
    y = torch.stack([first, second], 1) + 0.05 * torch.randn(3600, 2, generator=g)
    return _cut(x, (y - y.mean(0)) / y.std(0))
