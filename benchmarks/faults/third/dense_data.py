"""Data of the third generation's dense programs. The same at every call.

Shape legend: N = examples, F = features, B = instances of a bag.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split

INSTANCES = 120


def _cut(x: Tensor, y: Tensor, test: int = 600) -> Split:
    """Keep the last ones, of what was drawn independently."""
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


@cache
def shells(kinds: int = 3, features: int = 5) -> Split:
    """Which of some shells around the origin a point lies in: [N, F], as many of each kind."""
    x = torch.randn(3000, features, generator=drawing.drawn(41))
    radius = x.norm(dim=1)
    edges = radius.quantile(torch.arange(1, kinds) / kinds)
    return _cut(x, torch.bucketize(radius, edges))


@cache
def regimes(count: int = 6) -> Split:
    """A linear function of ten features, and another one in each of six regions: [N, 10] to [N, 1]."""
    g = drawing.drawn(42)
    x = torch.randn(4000, 10, generator=g)
    region = (x[:, :4] @ torch.randn(4, count, generator=g)).argmax(1)
    slopes, steps = torch.randn(count, 10, generator=g), torch.randn(count, generator=g)
    y = (x * slopes[region]).sum(1) + 2 * steps[region]
    return _cut(x, (y / y.std())[:, None])


@cache
def turned() -> Split:
    """Handwritten digits that lie on their side: [N, 64]."""
    return data.changed(data.digits(), lambda x: x.unflatten(1, (8, 8)).rot90(1, (1, 2)).flatten(1))


@cache
def bags(kinds: int = 5) -> Split:
    """Bags of points, which come from four heaps in shares that tell the kind of the bag: [N, 4 B], five kinds."""
    g = drawing.drawn(43)
    heaps, shares = 1.5 * torch.randn(4, 4, generator=g), torch.rand(kinds, 4, generator=g).square() + 0.05
    y = torch.randint(kinds, (1800,), generator=g)
    which = torch.multinomial(shares[y], INSTANCES, replacement=True, generator=g)
    x = heaps[which] + torch.randn(1800, INSTANCES, 4, generator=g)
    return _cut(x.flatten(1), y, 450)


@cache
def potential(charges: int = 5) -> Split:
    """The potential of a few charges at a place: [N, 3] to [N, 1]."""
    g = drawing.drawn(44)
    at, charge = 2 * torch.rand(charges, 3, generator=g) - 1, torch.tensor([1.0, -1.0, 1.5, -0.7, 0.9])
    x = 2 * torch.rand(3600, 3, generator=g) - 1
    y = (charge / ((x[:, None] - at).square().sum(2) + 0.1).sqrt()).sum(1)
    return _cut(x, ((y - y.mean()) / y.std())[:, None])


@cache
def prices() -> Split:
    """What flats cost, by a dozen features, in hundreds of thousands: [N, 12] to [N, 1]."""
    g = drawing.drawn(45)
    x = torch.randn(3200, 12, generator=g)
    y = (0.5 * x[:, 0] + 0.3 * x[:, 1].tanh() + 0.2 * x[:, 2] * x[:, 3]).exp() + 0.4 * x[:, 4].abs()
    return _cut(x, (y + 0.1 * torch.randn(3200, generator=g))[:, None])


@cache
def categories(features: int = 6, levels: int = 10, kinds: int = 4) -> Split:
    """Six features of ten levels each, one column a level: [N, 60], four classes."""
    g = drawing.drawn(46)
    level = torch.randint(levels, (3000, features), generator=g)
    worth = torch.randn(features, levels, kinds, generator=g)
    y = worth[torch.arange(features), level].sum(1) + 0.5 * torch.randn(3000, kinds, generator=g)
    return _cut(F.one_hot(level, levels).float().flatten(1), y.argmax(1))


@cache
def display() -> Split:
    """A display of seven segments, of which each is wrong once in ten times, and more bits of noise: [N, 16]."""
    g = drawing.drawn(47)
    lit = ("1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111", "1010010", "1111111", "1111011")
    y = torch.randint(10, (3000,), generator=g)
    clean = torch.tensor([[int(bit) for bit in digit] for digit in lit])[y]
    wrong = (torch.rand(clean.shape, generator=g) < 0.05).long()
    return _cut(torch.cat([clean ^ wrong, torch.randint(2, (3000, 9), generator=g)], 1).float(), y)
