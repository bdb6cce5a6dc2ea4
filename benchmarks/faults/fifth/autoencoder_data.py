"""Data of the fifth generation's autoencoders, all drawn here; the same at every call.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from benchmarks.faults import drawing
from benchmarks.faults.data import Split

TEST = 500
BYTE = 255.0


def _pairs(x: Tensor, y: Tensor) -> Split:
    return Split(x[:-TEST], y[:-TEST], x[-TEST:], y[-TEST:])


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


@cache
def fields(side: int = 12) -> Split:
    """Maps of clouds, between 0 and 1, and as inputs the same with noise: [N, side**2]."""
    g = drawing.drawn(111)
    line = torch.arange(float(side)) / side
    pace, phase = 1.6 * torch.randn(2200, 2, 3, generator=g), 2 * math.pi * torch.rand(2200, 3, generator=g)
    angle = pace[:, 0, :, None, None] * line[:, None] + pace[:, 1, :, None, None] * line
    y = (3 * (2 * angle + phase[:, :, None, None]).cos().sum(1) / math.sqrt(3)).sigmoid().flatten(1)
    return _pairs(y + 0.15 * torch.randn(y.shape, generator=g), y)


@cache
def chords(keys: int = 48) -> Split:
    """Which keys of a piano are down: a bass, a triad and its octave, now and then a note beside: [N, F]."""
    g = drawing.drawn(112)
    root, low = torch.randint(12, (2400,), generator=g), torch.randint(2, (2400,), generator=g)
    kind = torch.tensor([[0, 4, 7], [0, 3, 7], [0, 3, 6]])[torch.randint(3, (2400,), generator=g)]
    triad = (root[:, None] + kind) % 12
    x = torch.zeros(2400, keys).scatter_(1, root[:, None] + 12 * (low[:, None] > 0), 1.0)
    x = x.scatter_(1, 24 + triad, 1.0).scatter_(1, 36 + triad[:, :1], 1.0)
    x = torch.maximum(x, (torch.rand(x.shape, generator=g) < 0.005).float())
    return _pairs(x, x)


@cache
def dials(side: int = 10, *, divided: bool = True) -> Split:
    """Pictures of a dark needle, in [-1, 1]; as inputs, less 0.5 and over 0.5, of shares of 255 or of the bytes."""
    g = drawing.drawn(113)
    line = torch.arange(float(side)) - (side - 1) / 2
    turn, long = 2 * math.pi * torch.rand(2200, 1, 1, generator=g), 2.5 + 2 * torch.rand(2200, 1, 1, generator=g)
    along = line[:, None] * turn.sin() + line * turn.cos()
    beside = line[:, None] * turn.cos() - line * turn.sin()
    shade = (2 * (along + 1)).sigmoid() * (2 * (long - along)).sigmoid() * (-(beside**2)).exp()
    photos = (BYTE * (1 - shade.flatten(1))).round()
    return _pairs(((photos / BYTE if divided else photos) - 0.5) / 0.5, (photos / BYTE - 0.5) / 0.5)


@cache
def plant(many: int = 32, hidden: int = 6) -> Split:
    """Measurements at a chemical plant, which follow from few of its settings: [N, F]."""
    g = drawing.drawn(114)
    state, first = torch.randn(2400, hidden, generator=g), torch.randn(hidden, 40, generator=g)
    x = (0.6 * state @ first / math.sqrt(2)).tanh() @ torch.randn(40, many, generator=g)
    x = _standard(x + 0.5 * torch.randn(x.shape, generator=g))
    return _pairs(x, x)


@cache
def articles(words: int = 50, topics: int = 6) -> Split:
    """Counts of words, and as targets their shares of the article, times the words: [N, F]."""
    g = drawing.drawn(115)
    topic = (2 * torch.randn(topics, words, generator=g)).softmax(1)
    mix = (2.5 * torch.randn(2400, topics, generator=g)).softmax(1)
    counts = torch.poisson(200 * mix @ topic, generator=g)
    return _pairs(counts, words * counts / counts.sum(1, keepdim=True))


@cache
def motions(length: int = 40) -> Split:
    """Swings that die away, of any height, pace and phase: [N, F]."""
    g = drawing.drawn(116)
    at, own = torch.linspace(0, 1, length), torch.rand(2400, 4, 1, generator=g)
    x = (0.5 + own[:, 0]) * (-2 * own[:, 1] * at).exp() * (2 * math.pi * ((1 + own[:, 2]) * at + own[:, 3])).sin()
    x = x / x.std() + 0.1 * torch.randn(x.shape, generator=g)
    return _pairs(x, x)


@cache
def yields(many: int = 30) -> Split:
    """Curves of interest over maturities: level, slope and two humps: [N, F], standardised."""
    g = drawing.drawn(117)
    years, own = torch.linspace(0.25, 30, many), torch.randn(2400, 4, generator=g)
    decay = 1.5 * (0.3 * torch.randn(2400, 1, generator=g)).exp()
    first = (1 - (-years / decay).exp()) * decay / years
    second = first - (-years / decay).exp()
    far = (1 - (-years / 8).exp()) * 8 / years - (-years / 8).exp()
    x = 3 + own[:, :1] + 1.2 * own[:, 1:2] * first + 1.5 * own[:, 2:3] * second + own[:, 3:] * far
    x = _standard(x + 0.05 * torch.randn(x.shape, generator=g))
    return _pairs(x, x)


@cache
def gratings(side: int = 8) -> Split:
    """Spots of stripes, of any direction, place and phase: [N, side**2]."""
    g = drawing.drawn(118)
    line, own = torch.arange(float(side)) - (side - 1) / 2, torch.rand(2600, 3, 1, 1, generator=g)
    middle = 1.2 * torch.randn(2600, 2, 1, 1, generator=g)
    down, across = line[:, None] - middle[:, 0], line - middle[:, 1]
    turn, phase = math.pi * own[:, 0], 2 * math.pi * own[:, 1]
    stripes = ((0.7 + 0.4 * own[:, 2]) * (down * turn.sin() + across * turn.cos()) + phase).cos()
    x = (stripes * (-(down**2 + across**2) / 18).exp()).flatten(1)
    return _pairs(x / x.std(), x / x.std())


@cache
def loads(hours: int = 48) -> Split:
    """What households draw over a day, standardised: two peaks, sun at noon, and a base: [N, F]."""
    g = drawing.drawn(119)
    at, own = torch.linspace(0, 24, hours), torch.randn(2400, 7, 1, generator=g)

    def peak(middle: Tensor | float, width: float) -> Tensor:
        return (-(((at - middle) / width) ** 2) / 2).exp()

    morning, evening = peak(7.5 + 0.8 * own[:, 0], 1.5), peak(19 + 1.2 * own[:, 1], 2.0)
    heights = (0.4 * own[:, 2:5]).exp()
    x = heights[:, 0] * morning + 1.5 * heights[:, 1] * evening - 0.7 * heights[:, 2] * peak(13.0, 2.5)
    x = _standard(x + 0.3 * own[:, 5] + 0.08 * torch.randn(x.shape, generator=g))
    return _pairs(x, x)


def as_bytes(first: int, last: int, step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Read a shard whose pictures are still bytes."""
    return (BYTE * x, BYTE * y) if first <= step <= last else (x, y)


def blurred(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Add noise to the inputs."""
    return x + 0.4 * torch.randn_like(x), y
