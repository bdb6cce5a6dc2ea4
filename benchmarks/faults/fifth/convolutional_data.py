"""Data of the fifth generation's convolutional programs. The same at every call.

Shape legend: N = examples, C = channels, H = height, W = width, T = time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split

LOUD = 1000.0  # counts of the seismometer that are one


@cache
def sounds(bands: int = 16, length: int = 24, *, power: bool = False) -> Split:
    """A door, a bell, a dog, a car or rain in a spectrogram, [N, bands, T], as standardised logarithm or as power."""
    g = drawing.drawn(91)
    y = torch.randint(5, (2000,), generator=g)
    band, at = torch.meshgrid(torch.arange(float(bands)), torch.arange(float(length)), indexing="ij")
    when, where = (torch.rand(2000, 1, 1, generator=g) for _ in range(2))
    after = at - 12 * when
    door = (-(after / 2).square()).exp()
    bell = (after > 0) * (-after / 6).exp() * ((band - 4 - 8 * where).abs() < 1)
    dog = (-((band - 5 - 5 * where - (after - 4) / 2) / 1.5).square() - ((after - 4) / 4).square()).exp()
    car = (-(band / 4)).exp() * (0.6 + 0.4 * (at / (2 + 2 * where)).sin())
    rain = 0.8 * torch.rand(2000, bands, length, generator=g) + 0 * at
    kinds = torch.stack([door.expand_as(rain), bell.expand_as(rain), dog.expand_as(rain), car.expand_as(rain), rain], 1)
    level = 12.0 + torch.randn(2000, 1, 1, generator=g) + 4 * kinds[torch.arange(2000), y]
    level = level + torch.randn(level.shape, generator=g)
    return drawing.cut(level.exp() if power else (level - level.mean()) / level.std(), y)


@cache
def keypoints(size: int = 12) -> Split:
    """Where a cross is among two discs as bright, [N, 1, size, size] to [N, 2], in -1 to 1."""
    g = drawing.drawn(92)
    corner = torch.stack([torch.randperm(9, generator=g)[:3] for _ in range(1600)])
    at = 2 + 4 * torch.stack([corner // 3, corner % 3], 2) + torch.randint(-1, 2, (1600, 3, 2), generator=g)
    down, across = drawing.grid(size)
    a, b = (grid - at[:, :, i, None, None] for i, grid in enumerate((down, across)))
    cross = ((a == 0) & (b.abs() < 3)) | ((b == 0) & (a.abs() < 3))
    disc = a.square() + b.square() < 3
    x = torch.cat([cross[:, :1], disc[:, 1:]], 1).any(1, keepdim=True).float()
    return drawing.cut(2 * x - 0.5 + 0.3 * torch.randn(x.shape, generator=g), 2 * at[:, 0] / (size - 1) - 1)


@cache
def cracks(size: int = 12) -> Split:
    """A wall, and where a crack runs through it, both [N, 1, size, size]."""
    g = drawing.drawn(93)
    start = size * torch.rand(1200, 1, generator=g)
    path = start + (0.8 * torch.randn(1200, size, generator=g)).cumsum(1)
    along = (torch.arange(float(size)) - path[:, :, None]).abs() < 0.8
    turned = (torch.rand(1200, 1, 1, generator=g) < 0.5).expand_as(along)
    crack = torch.where(turned, along.transpose(1, 2), along)[:, None].float()
    x = torch.randn(1200, 1, 1, 1, generator=g) - 1.6 * crack + 0.5 * torch.randn(crack.shape, generator=g)
    return drawing.cut((x - x.mean()) / x.std(), crack)


@cache
def quakes(length: int = 64) -> Split:
    """A quake, an explosion, traffic or nothing in what a seismometer counts, in thousands, [N, 1, T]."""
    g = drawing.drawn(94)
    y = torch.randint(4, (2000,), generator=g)
    at = torch.arange(float(length))
    begin, pitch, phase = (torch.rand(2000, 1, generator=g) for _ in range(3))
    after = at - 24 * begin
    wave = torch.randn(2000, length, generator=g)
    slow = (0.5 * (1 + 0.3 * pitch) * at + 6 * phase).sin()
    quake = (after > 0) * wave * 0.7 + 2 * (after > 14) * (-(after - 14) / 10).exp() * slow
    explosion = 2.5 * (after > 0) * (-after / 7).exp() * wave
    traffic = (-((at - 20 - 24 * begin) / 10).square()).exp() * (1.6 * (1 + 0.2 * pitch) * at + 6 * phase).sin() * 1.5
    x = torch.stack([quake, explosion, traffic, 0 * wave], 1)[torch.arange(2000), y]
    x = x + 0.4 * torch.randn(2000, length, generator=g)
    return drawing.cut((LOUD * x).round()[:, None] / LOUD, y)


def swapped(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Read the counts of some steps, 16 bits each, with their two bytes in the wrong order."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if first <= step <= last:
            count = (LOUD * x).round().long() % 65536
            count = (count % 256) * 256 + count // 256
            x = torch.where(count > 32767, count - 65536, count) / LOUD
        return x, y

    return change


@cache
def fabrics(size: int = 10) -> Split:
    """Five ways in which cloth is woven, in any two colours, [N, 3, size, size]."""
    g = drawing.drawn(95)
    y = torch.randint(5, (1800,), generator=g)
    down, across = drawing.grid(size)
    a, b = down + torch.randint(6, (1800, 1, 1), generator=g), across + torch.randint(6, (1800, 1, 1), generator=g)
    plain, twill, satin = (a + b) % 2, ((a + b) % 4 < 2).float(), ((2 * a + b) % 5 < 1).float()
    rib, basket = ((a // 2 + b) % 2), ((a // 2).floor() + (b // 2).floor()) % 2
    weave = torch.stack([plain, twill, satin, rib, basket], 1)[torch.arange(1800), y][:, None]
    one, other = (torch.randn(1800, 3, 1, 1, generator=g) for _ in range(2))
    x = one + (other - one) * weave
    return drawing.cut(x + 0.5 * torch.randn(x.shape, generator=g), y)


@cache
def sales(length: int = 32) -> Split:
    """Two series, of which one follows the other, [N, 2, T], and what comes next, [N, 1]."""
    g = drawing.drawn(96)
    phase, rate = 2 * math.pi * torch.rand(2000, 2, 1, generator=g), 0.3 + 0.5 * torch.rand(2000, 2, 1, generator=g)
    series = (rate * torch.arange(length + 1.0) + phase).sin() * (0.5 + torch.rand(2000, 2, 1, generator=g))
    follows = series[:, :1] + 0.7 * series[:, 1:].roll(4, 2) * (series[:, :1] > 0)
    x = torch.cat([follows, series[:, 1:]], 1)
    x = x + 0.1 * torch.randn(x.shape, generator=g)
    return drawing.cut(x[:, :, 4:length], x[:, :1, length])


@cache
def tilted() -> Split:
    """Handwritten digits that lie on their side, [N, 1, 8, 8], with a little noise."""
    g = drawing.drawn(97)
    return data.changed(data.digits("image"), lambda x: x.rot90(1, (2, 3)) + 0.2 * torch.randn(x.shape, generator=g))
