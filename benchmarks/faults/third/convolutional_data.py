"""Data of the third generation's convolutional programs. The same at every call.

Shape legend: N = examples, T = time.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from benchmarks.faults import drawing
from benchmarks.faults.data import Split


@cache
def shapes(size: int = 12) -> Split:
    """Discs, squares, crosses and rings anywhere, on grounds of any brightness, [N, 1, size, size], four classes."""
    g = drawing.drawn(51)
    y = torch.randint(4, (1600,), generator=g)
    down, across = drawing.grid(size)
    middle, reach = 3.5 + (size - 8) * torch.rand(1600, 2, 1, 1, generator=g), 2 + torch.rand(1600, 1, 1, generator=g)
    a, b = (down - middle[:, 0]).abs(), (across - middle[:, 1]).abs()
    radius, edge = (a.square() + b.square()).sqrt(), torch.maximum(a, b)
    cross = (torch.minimum(a, b) < 0.8) & (edge < reach + 0.5)
    found = torch.stack([radius < reach, edge < reach, cross, (radius < reach + 0.5) & (radius > reach - 0.7)], 1)
    image = found[torch.arange(1600), y].float() * (0.6 + torch.rand(1600, 1, 1, generator=g))
    image = image + 2 * torch.rand(1600, 1, 1, generator=g) - 1 + 0.1 * torch.randn(image.shape, generator=g)
    return drawing.cut(image[:, None], y)


@cache
def gratings(kinds: int = 6, size: int = 10) -> Split:
    """Stripes that run in one of six directions, with much noise, [N, 1, size, size]."""
    g = drawing.drawn(52)
    y = torch.randint(kinds, (1800,), generator=g)
    turn, phase = math.pi * y[:, None, None] / kinds, 2 * math.pi * torch.rand(1800, 1, 1, generator=g)
    pitch = 1.1 + 0.5 * torch.rand(1800, 1, 1, generator=g)
    down, across = drawing.grid(size)
    x = (pitch * (turn.cos() * down + turn.sin() * across) + phase).sin()
    return drawing.cut((x + 0.9 * torch.randn(x.shape, generator=g))[:, None], y)


@cache
def beats(length: int = 48) -> Split:
    """Heart beats with and without an early, a wide or a missing wave, [N, 1, T], four classes."""
    g = drawing.drawn(53)
    y = torch.randint(4, (1800,), generator=g)
    start, wave = 4 * torch.rand(1800, 1, generator=g), 0.7 + 0.6 * torch.rand(1800, 3, 1, generator=g)
    at = torch.arange(float(length)) - start
    early, wide = torch.where(y == 1, 4.0, 0.0)[:, None], torch.where(y == 2, 2.5, 1.0)[:, None]
    first = torch.where(y == 3, 0.0, 0.4)[:, None] * wave[:, 0] * (-((at - 9) / 2.5).square()).exp()
    second = wave[:, 1] * (-((at - 19 + early) / (1.2 * wide)).square()).exp()
    third = 0.5 * wave[:, 2] * (-((at - 34) / 4).square()).exp()
    x = first + second + third + 0.12 * torch.randn(1800, length, generator=g)
    return drawing.cut(2 * x[:, None], y)


@cache
def cells(size: int = 12) -> Split:
    """How many bright cells a dim picture shows, [N, 1, size, size] to [N, 1] in standard deviations."""
    g = drawing.drawn(54)
    count = torch.randint(8, (1600,), generator=g)
    at = size * torch.rand(1600, 7, 2, 1, 1, generator=g)
    grid = torch.stack(drawing.grid(size))
    cell = (-(grid - at).square().sum(2) / 1.2).exp() * (torch.arange(7) < count[:, None])[..., None, None]
    x = 2 * cell.sum(1, keepdim=True) + 0.3 * torch.randn(1600, 1, size, size, generator=g)
    return drawing.cut(x, ((count - 3.5) / 2.3)[:, None])


@cache
def flags(size: int = 8) -> Split:
    """Which third of a flag has the third colour, and whether it stands or lies, [N, 3, size, size], six classes."""
    g = drawing.drawn(55)
    y = torch.randint(6, (1600,), generator=g)
    band = (torch.arange(size) * 3 // size)[None].eq((y % 3)[:, None]).float()
    band = torch.where((y < 3)[:, None, None], band[:, :, None], band[:, None, :])
    ground, colour = torch.randn(1600, 3, 1, 1, generator=g), torch.randn(1600, 3, 1, 1, generator=g)
    x = ground + (colour - ground) * band[:, None]
    return drawing.cut(x + 0.3 * torch.randn(1600, 3, size, size, generator=g), y)
