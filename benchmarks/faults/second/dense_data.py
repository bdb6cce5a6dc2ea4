"""Data of the dense programs. The same at every call.

Shape legend: N = examples, F = features, P = points of a set.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.faults import drawing
from benchmarks.faults.data import Split

POINTS = 30


def _cut(x: Tensor, y: Tensor, test: int = 600) -> Split:
    """Keep the last ones, of what was drawn independently."""
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


@cache
def board(squares: int = 4) -> Split:
    """Black and white squares of a board: [N, 2], two classes."""
    x = 2 * torch.rand(3600, 2, generator=drawing.drawn(21)) - 1
    return _cut(x, ((x + 1) * squares / 2).floor().long().sum(1) % 2)


@cache
def picture() -> Split:
    """Brightness of a picture at a place: [N, 2] to [N, 1]."""
    x = 2 * torch.rand(3600, 2, generator=drawing.drawn(22)) - 1
    y = (5 * x[:, :1] + 4 * x[:, 1:].square()).sin() * (6 * x[:, 1:]).cos()
    return _cut(x, y / y.std())


@cache
def counts() -> Split:
    """Counts, whose rates are 1 to 40: [N, 8] to [N, 1]."""
    g = drawing.drawn(23)
    x = torch.randn(3000, 8, generator=g)
    rate = (1.5 + 0.7 * (x[:, :1] + x[:, 1:2]).tanh() + 0.6 * x[:, 2:3] * (x[:, 3:4] > 0)).exp().clamp(max=40)
    return _cut(x, torch.poisson(rate, generator=g))


@cache
def tags() -> Split:
    """Twelve labels that come together, each on a quarter of the examples: [N, 24] to [N, 12] of 0 and 1."""
    g = drawing.drawn(24)
    x = torch.randn(3000, 24, generator=g)
    found = torch.relu(x @ torch.randn(24, 10, generator=g) / 3) @ torch.randn(10, 12, generator=g)
    return _cut(x, (found > found.quantile(0.75, dim=0)).float())


@cache
def parity(bits: int = 9, of: int = 3) -> Split:
    """Whether the first few of some signs multiply to one: [N, F], two classes."""
    x = 2.0 * torch.randint(2, (3000, bits), generator=drawing.drawn(25)) - 1
    return _cut(x, (x[:, :of].prod(1) > 0).long())


@cache
def sets() -> Split:
    """Sets of points on a ring, a line, in two heaps or one: [N, 2 P], four classes."""
    g = drawing.drawn(26)
    y = torch.randint(4, (2400,), generator=g)
    turn, along = (2 * math.pi * torch.rand(2400, n, generator=g) for n in (1, POINTS))
    radius = torch.randn(2400, POINTS, generator=g)
    ring = torch.stack([along.cos(), along.sin()], 2)
    line = torch.stack([radius * turn.cos(), radius * turn.sin()], 2)
    heaps = torch.stack([radius.sign() * turn.cos(), radius.sign() * turn.sin()], 2)
    heap = 0.7 * torch.randn(2400, POINTS, 2, generator=g)
    x = torch.stack([ring, line, heaps, heap])[y, torch.arange(2400)]
    return _cut((x + 0.25 * torch.randn(2400, POINTS, 2, generator=g)).flatten(1), y)


@cache
def sensors(*, seconds: bool = False) -> Split:
    """Readings and when they were taken, scaled or in seconds since 1970: [N, 7] to [N, 1]."""
    g = drawing.drawn(27)
    x = torch.randn(3000, 6, generator=g)
    when = torch.rand(3000, 1, generator=g)
    y = (1.5 * x[:, :1]).tanh() + 0.5 * x[:, 1:2] * x[:, 2:3].tanh() + x[:, 3:4].abs() + (2 * math.pi * when).sin()
    when = 1.7e9 + 3e7 * when if seconds else 3.4 * (when - 0.5)
    return _cut(torch.cat([x, when], 1), (y - y.mean()) / y.std())


@cache
def commands(*, degrees: bool = False) -> Split:
    """Positions of four rudders, as a share of what they can or in degrees: [N, 10] to [N, 4]."""
    g = drawing.drawn(28)
    x = torch.randn(2600, 10, generator=g)
    y = (x @ torch.randn(10, 4, generator=g) / 3 + 0.5 * (x[:, :4] * x[:, 4:8]).tanh()).tanh()
    return _cut(x, 35 * y if degrees else y)
