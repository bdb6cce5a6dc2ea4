"""Data of the fourth generation's autoencoders, all but digits drawn here; the same at every call.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split


def _pairs(x: Tensor, y: Tensor, test: int = 500) -> Split:
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


@cache
def beats(length: int = 64) -> Split:
    """Heartbeats of three waves each, as they are and with noise upon them as inputs: [N, F]."""
    g = drawing.drawn(71)
    at = torch.linspace(0, 1, length)
    place = torch.tensor([0.22, 0.45, 0.72])[:, None] + 0.04 * torch.randn(2300, 3, 1, generator=g)
    height = torch.tensor([0.5, 2.5, 0.9])[:, None] * (0.5 + torch.rand(2300, 3, 1, generator=g))
    width = torch.tensor([0.04, 0.025, 0.07])[:, None] * (0.7 + 0.6 * torch.rand(2300, 3, 1, generator=g))
    y = (height * (-(((at - place) / width) ** 2) / 2).exp()).sum(1)
    y = (y - y.mean()) / y.std()
    return _pairs(y + 0.4 * torch.randn(2300, length, generator=g), y)


@cache
def plates(side: int = 12) -> Split:
    """Pictures of a disc and a bar, [N, side**2], of which inputs are means of four pixels: [N, side**2 / 4]."""
    g = drawing.drawn(72)
    line = torch.arange(float(side))
    middle, radius = side * torch.rand(1900, 2, generator=g), 2 + 2 * torch.rand(1900, 1, 1, generator=g)
    turn, off = math.pi * torch.rand(1900, 1, 1, generator=g), side / 2 * torch.randn(1900, 1, 1, generator=g) / 2
    far = ((line[:, None] - middle[:, :1, None]) ** 2 + (line - middle[:, 1:, None]) ** 2).sqrt()
    across = (line[:, None] - side / 2) * turn.cos() + (line - side / 2) * turn.sin() - off
    x = (3 * (radius - far)).sigmoid() - (3 * (1 - across.abs())).sigmoid()
    return _pairs(F.avg_pool2d(x[:, None], 2).flatten(1), x.flatten(1))


@cache
def torn() -> Split:
    """Digits, of which a square of 3 by 3 pixels is missing in the inputs: [N, 64]."""
    of, g = data.digits(), drawing.drawn(73)

    def tear(y: Tensor) -> Tensor:
        x = y.clone().view(-1, 8, 8)
        for image, (row, column) in zip(x, (1 + torch.randint(4, (len(y), 2), generator=g)).tolist(), strict=True):
            image[row : row + 3, column : column + 3] = 0
        return x.flatten(1)

    return Split(tear(of.x), of.x, tear(of.x_test), of.x_test)


@cache
def dots(side: int = 10) -> Split:
    """Pictures of a soft dot, anywhere and of any size: [N, side**2]."""
    g = drawing.drawn(74)
    line = torch.linspace(-1, 1, side)
    middle, size = 1.6 * torch.rand(2000, 2, generator=g) - 0.8, 0.2 + 0.3 * torch.rand(2000, 1, 1, generator=g)
    far = (line[:, None] - middle[:, :1, None]) ** 2 + (line - middle[:, 1:, None]) ** 2
    x = (-far / (2 * size**2)).exp().flatten(1)
    return _pairs(x, x)


@cache
def sensors(*, raw: bool = False, many: int = 24) -> Split:
    """Sensors of a machine in five ways of running, standardised, or as inputs in kelvin, pascal, ...: [N, F]."""
    g = drawing.drawn(75)
    inner = torch.randn(2300, 5, generator=g)
    y = (inner @ torch.randn(5, many, generator=g) / 2 + torch.randn(many, generator=g) / 2).tanh()
    y = y + 0.4 * inner @ torch.randn(5, many, generator=g) + 0.1 * torch.randn(2300, many, generator=g)
    y = (y - y.mean(0)) / y.std(0)
    offset, scale = torch.tensor([293.0, 1.013e5, 1450.0, 48.0]), torch.tensor([12.0, 2300.0, 180.0, 9.0])
    return _pairs(y * scale.repeat(many // 4) + offset.repeat(many // 4) if raw else y, y)


@cache
def ratings(items: int = 60) -> Split:
    """Ratings that users would give, less the mean, and as inputs those they gave, or 0; some gave none: [N, F]."""
    g = drawing.drawn(76)
    taste = torch.randn(2000, 4, generator=g) @ torch.randn(4, items, generator=g) / 2
    y = taste + 0.5 * torch.randn(items, generator=g) + 0.2 * torch.randn(2000, items, generator=g)
    given = torch.rand(2000, items, generator=g) < 0.4
    given[:1500:40] = False
    return _pairs(y * given, y)


@cache
def growth(length: int = 40) -> Split:
    """Curves of growth and decline, standardised: [N, F]."""
    g = drawing.drawn(77)
    at = torch.linspace(0, 1, length)
    start, end = 0.1 + 0.4 * torch.rand(2300, 1, generator=g), 0.6 + 0.4 * torch.rand(2300, 1, generator=g)
    pace, top = 10 + 30 * torch.rand(2300, 2, generator=g), 0.5 + torch.rand(2300, 1, generator=g)
    y = top * ((at - start) * pace[:, :1]).sigmoid() * (1 - 0.8 * ((at - end) * pace[:, 1:]).sigmoid())
    y = (y - y.mean(0)) / y.std(0) + 0.05 * torch.randn(2300, length, generator=g)
    return _pairs(y, y)


@cache
def activations(width: int = 32, features: int = 64) -> Split:
    """Sums of four of many directions, as a language model might have them inside, of variance 1: [N, F]."""
    g = drawing.drawn(78)
    directions = F.normalize(torch.randn(features, width, generator=g), dim=1)
    on = torch.rand(3500, features, generator=g).argsort(1) < 4
    y = (on * (0.5 + torch.rand(3500, features, generator=g))) @ directions
    y = (y - y.mean(0)) / y.std()
    return _pairs(y, y)


@cache
def pinwheel(arms: int = 5) -> Tensor:
    """Curved arms around the origin, [N, 2]."""
    g = drawing.drawn(79)
    arm, along = torch.randint(arms, (3000,), generator=g), 1 + 0.3 * torch.randn(3000, generator=g)
    across = 0.05 * torch.randn(3000, generator=g)
    angle = 2 * math.pi * arm / arms + 0.25 * along.exp()
    x, y = angle.cos() * along - angle.sin() * across, angle.sin() * along + angle.cos() * across
    return 1.3 * torch.stack([x, y], 1)


@cache
def circles() -> Tensor:
    """Two circles around each other, [N, 2]."""
    g = drawing.drawn(80)
    angle = 2 * math.pi * torch.rand(3000, generator=g)
    radius = torch.where(torch.rand(3000, generator=g) < 0.4, 0.7, 1.7) + 0.05 * torch.randn(3000, generator=g)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1)


def off(first: int, last: int, rail: float) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Let the electrodes be off in some steps: the signal stays at its rail."""
    return lambda step, x, y: (0 * x + rail, 0 * y + rail) if first <= step <= last else (x, y)


def only_given(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Keep the ratings that were given."""
    return x, y * (x != 0)
