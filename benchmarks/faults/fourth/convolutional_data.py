"""Data of the fourth generation's convolutional programs. The same at every call.

Shape legend: N = examples, C = channels, H = height, W = width, T = time.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch.nn import functional as F

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split


@cache
def scans(size: int = 12, *, windowed: bool = True) -> Split:
    """Slices of a body with nothing, a nodule, a cyst or a ring of lime, [N, 1, size, size], four classes.

    What a window of Hounsfield units shows, or the upper 12 of 16 bits of a file (water 16,384).
    """
    g = drawing.drawn(71)
    y = torch.randint(4, (1600,), generator=g)
    down, across = drawing.grid(size)
    axes, middle = 4.6 + torch.rand(1600, 2, 1, 1, generator=g), (size - 1) / 2
    body = ((down - middle) / axes[:, :1, 0]).square() + ((across - middle) / axes[:, 1:, 0]).square() < 1
    at = middle + 3.4 * (torch.rand(1600, 2, 1, 1, generator=g) - 0.5)
    away = ((down - at[:, 0]).square() + (across - at[:, 1]).square()).sqrt()
    size_of = 1.2 + 0.7 * torch.rand(1600, 1, 1, generator=g)
    ring = (away - size_of).abs() < 0.5
    change = torch.stack([0 * away, 110.0 * (away < size_of), -120.0 * (away < size_of), 110.0 * ring], 1)
    x = torch.where(body, 40 + change[torch.arange(1600), y], torch.full_like(away, -1000.0))
    x = (x + 25 * torch.randn(x.shape, generator=g))[:, None]
    return drawing.cut(((x - 40) / 200).clamp(-1, 1) if windowed else 16 * (x + 1024).clamp(0, 4095), y)


@cache
def radar(size: int = 12, frames: int = 3) -> Split:
    """Some pictures of showers that move, [N, frames, size, size], and the next one, [N, 1, size, size]."""
    g = drawing.drawn(72)
    at = size * torch.rand(1200, 1, 3, 2, 1, 1, generator=g)
    way = 1.2 * torch.randn(1200, 1, 1, 2, 1, 1, generator=g)
    strength = 0.5 + torch.rand(1200, 1, 3, 1, 1, generator=g)
    moved = at + way * torch.arange(float(frames + 1)).reshape(1, -1, 1, 1, 1, 1)
    rain = (strength * (-(torch.stack(drawing.grid(size)) - moved).square().sum(3) / 4).exp()).sum(2)
    rain = 2 * (rain + 0.05 * torch.randn(rain.shape, generator=g)) - 1
    return drawing.cut(rain[:, :frames], rain[:, frames:])


@cache
def ranges(size: int = 12) -> Split:
    """A lit scene, [N, 1, size, size], and its distance in metres, 0 where the sensor saw none; judged by logarithms.

    The test half has no such holes.
    """
    g = drawing.drawn(73)
    down, across = drawing.grid(size)
    tilt = torch.randn(900, 2, 1, 1, generator=g) / size
    far = 1.0 + 0.6 * torch.rand(900, 1, 1, generator=g) + tilt[:, 0] * (down - 6) + tilt[:, 1] * (across - 6)
    at, reach = size * torch.rand(900, 2, 1, 1, generator=g), 2 + 2 * torch.rand(900, 1, 1, generator=g)
    ball = (down - at[:, 0]).square() + (across - at[:, 1]).square() < reach.square()
    far = torch.where(ball, far - 0.8, far)[:, None]
    light = 2 * (-far).exp() + 0.15 * torch.randn(far.shape, generator=g)
    seen = torch.rand(far.shape, generator=g) > 0.04
    split = drawing.cut((light - light.mean()) / light.std(), far)
    return split._replace(y=split.y.exp() * seen[: len(split.y)])


@cache
def satellite(size: int = 12) -> Split:
    """Fields, forests, towns, lakes and roads from above, [N, 3, size, size], five classes."""
    g = drawing.drawn(74)
    y = torch.randint(5, (1600,), generator=g)
    down, across = drawing.grid(size)
    turn, phase = (math.pi * n * torch.rand(1600, 1, 1, generator=g) for n in (1, 2))
    along = turn.cos() * down + turn.sin() * across
    stripes, road = (1.6 * along + phase).sin(), 2.0 * ((along - along.mean((1, 2), keepdim=True)).abs() < 1.2)
    crowns = torch.randn(1600, size, size, generator=g)
    blocks = torch.randn(1600, 4, 4, generator=g).repeat_interleave(3, 1).repeat_interleave(3, 2)
    smooth = F.avg_pool2d(torch.randn(1600, 1, size, size, generator=g), 5, 1, 2)[:, 0]
    texture = torch.stack([stripes, crowns, blocks, smooth, road], 1)[torch.arange(1600), y]
    tint = torch.randn(1600, 3, 1, 1, generator=g)
    return drawing.cut(texture[:, None] + 0.7 * tint + 0.5 * torch.randn(1600, 3, size, size, generator=g), y)


@cache
def calls(length: int = 64) -> Split:
    """Calls that rise, fall, stay, warble, click or hiss, with noise, [N, 1, T], six classes."""
    g = drawing.drawn(75)
    y = torch.randint(6, (2000,), generator=g)
    at = torch.arange(float(length)) / length
    pitch, phase, speed = (torch.rand(2000, 1, generator=g) for _ in range(3))
    turns = (6 + 4 * pitch) * at
    kinds = [
        (2 * math.pi * (turns + 5 * at.square() + phase)).sin(),
        (2 * math.pi * (turns + 10 * at - 5 * at.square() + phase)).sin(),
        (2 * math.pi * (turns + phase)).sin(),
        (2 * math.pi * (turns + 0.6 * (2 * math.pi * (2 + speed) * at).sin() + phase)).sin(),
        3.0 * ((at * (4 + 3 * speed) + phase).frac() < 0.1),
        torch.randn(2000, length, generator=g),
    ]
    x = torch.stack(kinds, 1)[torch.arange(2000), y] + 0.3 * torch.randn(2000, length, generator=g)
    return drawing.cut(x[:, None], y)


@cache
def words(kinds: int = 5, letters: int = 16, length: int = 24) -> Split:
    """Lines in five languages, whose letters follow one another each in its own way, [N, letters, T]."""
    g = drawing.drawn(76)
    follow = (1.5 * torch.randn(kinds, letters, letters, generator=g)).softmax(2)
    y = torch.randint(kinds, (2000,), generator=g)
    line = [torch.randint(letters, (2000,), generator=g)]
    for _ in range(length - 1):
        line.append(torch.multinomial(follow[y, line[-1]], 1, generator=g)[:, 0])
    return drawing.cut(F.one_hot(torch.stack(line, 1), letters).float().transpose(1, 2), y)


@cache
def surfaces(size: int = 12) -> Split:
    """Metal that is whole, scratched, dented or stained, with a grain, [N, 1, size, size], four classes."""
    g = drawing.drawn(77)
    y = torch.randint(4, (1800,), generator=g)
    down, across = drawing.grid(size)
    turn, at = math.pi * torch.rand(1800, 1, 1, generator=g), 3 + 6 * torch.rand(1800, 2, 1, 1, generator=g)
    a, b = down - at[:, 0], across - at[:, 1]
    scratch = -1.6 * ((turn.cos() * a + turn.sin() * b).abs() < 0.6)
    away = a.square() + b.square()
    dent, stain = 1.6 * a * (-away / 3).exp(), -1.2 * (away < 6)
    x = torch.stack([0 * a, scratch, dent, stain], 1)[torch.arange(1800), y]
    grain = 0.4 * torch.randn(1800, size, 1, generator=g) + 0.4 * torch.randn(1800, size, size, generator=g)
    return drawing.cut((x + grain)[:, None], y)


@cache
def sky(size: int = 14) -> Split:
    """One star, two, a galaxy or the track of a particle on a black sky, brightness 0 to 1, [N, 1, size, size]."""
    g = drawing.drawn(78)
    y = torch.randint(4, (1800,), generator=g)
    down, across = drawing.grid(size)
    at = 4 + (size - 9) * torch.rand(1800, 2, 1, 1, generator=g)
    a, b, turn = down - at[:, 0], across - at[:, 1], math.pi * torch.rand(1800, 1, 1, generator=g)
    along, beside = turn.cos() * a + turn.sin() * b, turn.cos() * b - turn.sin() * a
    star = (-(along.square() + beside.square()) / 1.5).exp()
    other = 0.8 * (-((along - 3).square() + beside.square()) / 1.5).exp()
    galaxy = (-(along.square() / 9 + beside.square() / 2)).exp()
    track = 0.9 * ((beside.abs() < 0.5) & (along.abs() < 4))
    x = torch.stack([star, star + other, galaxy, track], 1)[torch.arange(1800), y]
    x = x * (0.5 + 0.5 * torch.rand(1800, 1, 1, generator=g)) + 0.08 * torch.randn(x.shape, generator=g)
    return drawing.cut(x.clamp(0, 1)[:, None], y)


@cache
def mail() -> Split:
    """Handwritten digits, [N, 1, 8, 8]."""
    return data.digits("image")
