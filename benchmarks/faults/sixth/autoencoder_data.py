"""Data of the sixth generation's autoencoders.

Shape legend: N = examples, F = features, K = factors.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import drawing
from benchmarks.faults.data import Split


def _pairs(x: Tensor, y: Tensor, test: int = 500) -> Split:
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


@cache
def turbines(many: int = 20) -> Split:
    """Temperatures, pressures and flows of a turbine, which follow load, air and wear; standardised: [N, F]."""
    g = drawing.drawn(201)
    state = torch.randn(2400, 3, generator=g)
    inner = (state @ torch.randn(3, 12, generator=g) + 0.5 * torch.randn(12, generator=g)).tanh()
    x = inner @ torch.randn(12, many, generator=g) / math.sqrt(12) + 0.1 * torch.randn(2400, many, generator=g)
    return _pairs(_standard(x), _standard(x))


@cache
def vibrations(norm: str = "forward", length: int = 512, bands: int = 64) -> Split:
    """Spectra of a machine with noise, and without: the harmonics of a speed, [N, F]; ``norm`` is that of the input."""
    g = drawing.drawn(202)
    t = torch.arange(length) / length
    speed = 5 + 3 * torch.rand(2400, 1, generator=g)
    wear = 0.1 + 2 * torch.rand(2400, 1, generator=g)
    heights = wear * (0.3 + torch.rand(2400, 3, generator=g)) * torch.tensor([1.5, 1.0, 0.7])
    phases = 2 * math.pi * torch.rand(2400, 3, 1, generator=g)
    order = torch.tensor([1.0, 2.0, 3.0])[:, None]
    clean = (heights[:, :, None] * (2 * math.pi * order * speed[:, :, None] * t + phases).sin()).sum(1)
    noisy = clean + 0.4 * torch.randn(2400, length, generator=g)
    x = 2 * torch.fft.rfft(noisy, norm=norm).abs()[:, :bands]
    return _pairs(x, 2 * torch.fft.rfft(clean, norm="forward").abs()[:, :bands])


@cache
def baskets(goods: int = 60, habits: int = 6) -> Split:
    """Roots of how much of what is bought, by people of mixed habits: [N, F]."""
    g = drawing.drawn(203)
    taste = (2.0 * torch.randn(habits, goods, generator=g)).softmax(1)
    mix = (1.5 * torch.randn(2400, habits, generator=g)).softmax(1)
    counts = torch.poisson(80 * mix @ taste, generator=g)
    x = counts.sqrt()
    return _pairs((x - x.mean()) / x.std(), (x - x.mean()) / x.std())


@cache
def outfits(pieces: int = 4, kinds: int = 5, many: int = 24) -> Split:
    """What some pieces look like together, each of them one of some kinds: [N, F]."""
    g = drawing.drawn(204)
    looks = torch.randn(pieces, kinds, many, generator=g)
    worn = torch.randint(kinds, (2400, pieces), generator=g)
    x = looks[torch.arange(pieces), worn].sum(1) / 2 + 0.1 * torch.randn(2400, many, generator=g)
    return _pairs(x, x)


@cache
def quakes(length: int = 40) -> Split:
    """Shakes that begin at some time, swing and fade: [N, F]."""
    g = drawing.drawn(205)
    t = torch.linspace(0, 1, length)
    begin, pitch, fading, height = (torch.rand(2400, 1, generator=g) for _ in range(4))
    since = (t - 0.4 * begin).clamp(min=0)
    x = (0.5 + height) * (-(2 + 3 * fading) * since).exp() * (2 * math.pi * (2 + pitch) * since).sin()
    x = x / x.std() + 0.05 * torch.randn(2400, length, generator=g)
    return _pairs(x, x)


@cache
def census() -> Split:
    """Work, region and home as one-hot columns, and six standardised numbers that go with them: [N, F]."""
    g = drawing.drawn(206)
    person = torch.randn(2400, 3, generator=g)
    columns = []
    for kinds in (4, 5, 3):
        kind = (3 * person @ torch.randn(3, kinds, generator=g) + torch.randn(2400, kinds, generator=g)).argmax(1)
        columns.append(F.one_hot(kind, kinds).float())
    numbers = (person @ torch.randn(3, 6, generator=g)).tanh() + 0.15 * torch.randn(2400, 6, generator=g)
    x = torch.cat([*columns, _standard(numbers)], 1)
    return _pairs(x, x)


@cache
def stains(side: int = 8) -> Split:
    """Pictures of a stretched and turned spot, between 0 and 1: [N, F]."""
    g = drawing.drawn(207)
    at = torch.linspace(-1, 1, side)
    down, across = torch.meshgrid(at, at, indexing="ij")
    right, low, turn, long = (torch.rand(2400, 1, 1, generator=g) for _ in range(4))
    u, v = across - (right - 0.5), down - (low - 0.5)
    turn = math.pi * turn
    along, beside = u * turn.cos() + v * turn.sin(), v * turn.cos() - u * turn.sin()
    x = (-((along / (0.4 + 0.6 * long)) ** 2) - (beside / 0.3) ** 2).exp().flatten(1)
    return _pairs(x, x)
