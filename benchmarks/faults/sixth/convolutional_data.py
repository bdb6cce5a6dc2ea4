"""Data of the sixth generation's convolutional programs. The same at every call.

Shape legend: N = examples, C = channels, H = height, W = width, T = time.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split


def _grid(size: int) -> tuple[Tensor, Tensor]:
    at = torch.linspace(-1, 1, size)
    down, across = torch.meshgrid(at, at, indexing="ij")
    return down, across


@cache
def leaves(size: int = 12) -> Split:
    """Leaves with three, four, five or no lobes, turned at will, and half hidden by noise, [N, 1, size, size]."""
    g = drawing.drawn(111)
    y = torch.randint(4, (2000,), generator=g)
    place = 0.2 * torch.randn(2000, 2, 1, 1, generator=g)
    down, across = _grid(size)
    down, across = down - place[:, 0], across - place[:, 1]
    turn = 2 * math.pi * torch.rand(2000, 1, 1, generator=g)
    lobes = torch.tensor([0.0, 3.0, 4.0, 5.0])[y][:, None, None]
    edge = 0.6 + 0.3 * (lobes * torch.atan2(down, across) + turn).cos() * (lobes > 0)
    x = torch.sigmoid(12 * (edge - (down.square() + across.square()).sqrt()))
    x = x + 0.25 * torch.randn(x.shape, generator=g)
    return drawing.cut(((x - x.mean()) / x.std())[:, None], y)


MEAN, SPREAD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of ImageNet, in 0 to 1


@cache
def fruit(size: int = 12, *, as_bytes: bool = False) -> Split:
    """How ripe a fruit is, green to red in any light, [N, 3, size, size] to [N, 1].

    ImageNet's mean is taken away, and its spread divided by.

    ``as_bytes`` leaves pixels in 0 to 255 before that.
    """
    g = drawing.drawn(112)
    ripe, green, red = torch.rand(2000, 1, generator=g), torch.tensor([0.4, 0.7, 0.2]), torch.tensor([0.8, 0.3, 0.2])
    colours = green.lerp(red, ripe)
    long = 1 + torch.rand(2000, 1, 1, generator=g)
    place = 0.3 * torch.randn(2000, 2, 1, 1, generator=g)
    down, across = _grid(size)
    inside = torch.sigmoid(
        10 * (0.5 - ((down - place[:, 0]).square() + (long * (across - place[:, 1])).square()).sqrt())
    )
    ground = 0.2 + 0.6 * torch.rand(2000, 3, 1, 1, generator=g)
    x = ground + inside[:, None] * (colours[..., None, None] - ground)
    x = (0.6 + 0.4 * torch.rand(2000, 1, 1, 1, generator=g)) * x + 0.03 * torch.randn(x.shape, generator=g)
    x = x.clamp(0, 1)
    return drawing.cut(
        ((255 * x if as_bytes else x) - MEAN[:, None, None]) / SPREAD[:, None, None], (ripe - 0.5) * math.sqrt(12)
    )


@cache
def ships(size: int = 12, share: float = 0.15) -> Split:
    """A radar's picture, [N, 1, size, size], and whether a ship is seen and where, in 0 to 1, [N, 3]; else zeros."""
    g = drawing.drawn(113)
    seen = (torch.rand(2000, 1, generator=g) < share).float()
    place, turn = 1.4 * torch.rand(2000, 2, generator=g) - 0.7, math.pi * torch.rand(2000, 1, 1, generator=g)
    down, across = _grid(size)
    down, across = down - place[:, 0, None, None], across - place[:, 1, None, None]
    along, beside = down * turn.cos() + across * turn.sin(), across * turn.cos() - down * turn.sin()
    ship = (-(along / 0.35).square() - (beside / 0.12).square()).exp()
    x = 2 * seen[..., None] * ship + 0.35 * torch.randn(ship.shape, generator=g).abs()
    return drawing.cut(((x - x.mean()) / x.std())[:, None], torch.cat([seen, seen * (place / 2 + 0.5)], 1))


@cache
def bearings(length: int = 64) -> Split:
    """What a bearing sounds like that is whole, or worn inside, outside or at a ball, [N, 1, T], four classes."""
    g = drawing.drawn(114)
    y = torch.randint(4, (2400,), generator=g)
    at = torch.arange(float(length))
    period = torch.tensor([1e6, 6.0, 9.5, 15.0])[y][:, None] * (1 + 0.04 * torch.randn(2400, 1, generator=g))
    since = (at + 40 * torch.rand(2400, 1, generator=g)) % period
    ring = (-since / 2.5).exp() * (1.6 * since).cos() * (y > 0)[:, None]
    hum = (0.2 * at + 6.3 * torch.rand(2400, 1, generator=g)).sin()
    x = 1.6 * ring + hum + 0.5 * torch.randn(2400, length, generator=g)
    return drawing.cut((x / x.std())[:, None], y)


@cache
def even() -> Split:
    """Whether a handwritten digit is even, with noise and a bright line somewhere, [N, 1, 8, 8]."""
    g, of = drawing.drawn(115), data.digits("image")

    def spoilt(x: Tensor) -> Tensor:
        line = (torch.arange(8) == torch.randint(8, (len(x), 1), generator=g)).float()[:, None, None]
        return x + 0.4 * torch.randn(x.shape, generator=g) + line

    return data.changed(of, spoilt)._replace(y=of.y % 2, y_test=of.y_test % 2)


@cache
def ripples(size: int = 12) -> Split:
    """How strong the wind is, by the waves that it makes, from any side, [N, 1, size, size] to [N, 1]."""
    g = drawing.drawn(116)
    wind = torch.rand(2000, generator=g)
    turn, phase = (6.3 * torch.rand(2000, 1, 1, generator=g) for _ in range(2))
    down, across = _grid(size)
    number = (4 + 10 * (1 - wind))[:, None, None]
    x = (number * (down * turn.cos() + across * turn.sin()) + phase).sin()
    x = x + 0.5 * torch.randn(x.shape, generator=g)
    return drawing.cut(x[:, None], ((wind - 0.5) * math.sqrt(12))[:, None])


@cache
def knots(size: int = 14) -> Split:
    """How many knots, 0 to 4, a board has, on a grain that runs along it, [N, 1, size, size], five classes."""
    g = drawing.drawn(117)
    y = torch.randint(5, (2000,), generator=g)
    cell = torch.rand(2000, 9, generator=g).argsort(1)[:, :4]
    place = torch.stack([cell // 3, cell % 3], 2) * 0.6 - 0.6 + 0.1 * torch.randn(2000, 4, 2, generator=g)
    down, across = _grid(size)
    apart = (down - place[..., 0, None, None]).square() + (across - place[..., 1, None, None]).square()
    there = torch.arange(4) < y[:, None]
    x = ((-apart / 0.03).exp() * there[..., None, None]).sum(1)
    x = (
        x
        + 0.3 * (9 * across + 6.3 * torch.rand(2000, 1, 1, generator=g)).sin()
        + 0.2 * torch.randn(x.shape, generator=g)
    )
    return drawing.cut(((x - x.mean()) / x.std())[:, None], y)
