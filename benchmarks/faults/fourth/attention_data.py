"""Data of the fourth transformers: series, reversed rows, tags, pulses, shapes, offers, ranks and Python's own code.

The same at every call. Shape legend: N = examples, T = tokens, F = features.
"""

from __future__ import annotations

import inspect
import math
import textwrap
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from benchmarks.faults.data import Split, changed, digits

SYMBOLS, LENGTH = 8, 6  # of rows that are reversed; the symbol after the last one begins a row
WORDS, TAGS = 45, 5
PULSES, SHAPES, OFFERS, NUMBERS = 3, 5, 7, 6
MISSING = -9999.0


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def columns() -> Split:
    """Digits as eight columns [N, T = 8, F = 8]."""
    return changed(digits("rows"), lambda x: x.mT.contiguous())


@cache
def series() -> Split:
    """24 values of a season, a slope and noise in pieces [N, T = 6, F = 4], and the next four [N, 4]."""
    g = _drawn(51)
    t = torch.arange(28.0)
    period, phase = 6 + 8 * torch.rand(2000, 1, generator=g), 2 * math.pi * torch.rand(2000, 1, generator=g)
    size, slope = 0.7 + 0.6 * torch.rand(2000, 1, generator=g), 0.04 * torch.randn(2000, 1, generator=g)
    x = size * (2 * math.pi * t / period + phase).sin() + slope * (t - 12) + 0.1 * torch.randn(2000, 28, generator=g)
    return _split(x[:, :24].unflatten(1, (6, 4)), x[:, 24:])


@cache
def reversals() -> Split:
    """Rows of symbols, then what is written so far [N, 2 T], and the same from behind in another alphabet [N, T]."""
    g = _drawn(52)
    x = torch.randint(SYMBOLS, (2400, LENGTH), generator=g)
    y = torch.randperm(SYMBOLS, generator=g)[x.flip(1)]
    begin = torch.full((2400, 1), SYMBOLS)
    return _split(torch.cat([x, begin, y[:, :-1]], 1), y)


@cache
def sentences() -> Split:
    """Words [N, T = 9] and their tags [N, T]; that of every third word follows from the word before it."""
    g = _drawn(53)
    x = torch.randint(WORDS, (2000, 9), generator=g)
    own = torch.randint(TAGS, (WORDS,), generator=g)
    before = torch.cat([torch.zeros(2000, 1, dtype=torch.long), own[x[:, :-1]]], 1)
    return _split(x, torch.where(x % 3 == 0, (before + 1) % TAGS, own[x]))


@cache
def pulses() -> Split:
    """Noise with two pulses of three kinds [N, T = 12, F = 4], and which came first and which later."""
    g = _drawn(54)
    forms = 2.5 * F.normalize(torch.randn(PULSES, 4, generator=g), dim=1)
    x = 0.4 * torch.randn(2000, 12, 4, generator=g)
    kinds, times = torch.rand(2000, PULSES, generator=g).argsort(1)[:, :2], torch.rand(2000, 12, generator=g)
    at = times.argsort(1)[:, :2].sort(1).values
    for n in range(2):
        x[torch.arange(2000), at[:, n]] += forms[kinds[:, n]]
    return _split(x, kinds[:, 0] * (PULSES - 1) + kinds[:, 1] - (kinds[:, 1] > kinds[:, 0]).long())


@cache
def shapes() -> Split:
    """Points of a circle, a square, a cross, a line or a cloud, turned and moved [N, T = 10, F = 2]."""
    g = _drawn(55)
    y, t = torch.randint(SHAPES, (2000,), generator=g), 2 * torch.rand(2000, 10, generator=g) - 1
    side, zero = torch.randint(4, (2000, 10), generator=g), torch.zeros(2000, 10)
    circle = torch.stack([(math.pi * t).cos(), (math.pi * t).sin()], 2)
    edge, sign = torch.where(side % 2 == 0, 1.0, -1.0), (side < 2)[..., None]
    square = torch.where(sign, torch.stack([t, edge], 2), torch.stack([edge, t], 2))
    cross = torch.where(sign, torch.stack([t, zero], 2), torch.stack([zero, t], 2))
    cloud = 0.6 * torch.randn(2000, 10, 2, generator=g)
    x = torch.stack([circle, square, cross, torch.stack([t, zero], 2), cloud])[y, torch.arange(2000)]
    turn = 0.3 * torch.randn(2000, generator=g)
    turned = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()], 1).unflatten(1, (2, 2))
    return _split(x @ turned + 0.05 * torch.randn(2000, 10, 2, generator=g), y)


@cache
def offers(unit: float = 1.0) -> Split:
    """A wish and seven offers of two features, in a unit [N, T = 8, F = 2], and which comes nearest to the wish."""
    g = _drawn(56)
    x = torch.randn(3000, 1 + OFFERS, 2, generator=g)
    y = (x[:, 1:] - x[:, :1]).square().sum(2).argmin(1)
    return _split(unit * x, y)


@cache
def ranks() -> Split:
    """Numbers [N, T = 6, F = 1], and how many of the others are smaller, for each [N, T]."""
    x = torch.randn(2400, NUMBERS, generator=_drawn(57))
    return _split(x[..., None], x.argsort(1).argsort(1))


@cache
def code() -> tuple[Split, int]:
    """Source text of Python's ``textwrap``, [N, T = 16], and the next characters; how many there are."""
    whole = " ".join(inspect.getsource(textwrap.TextWrapper).lower().split())[:3000]
    known = {letter: number for number, letter in enumerate(sorted(set(whole)))}
    rows = torch.tensor([known[letter] for letter in whole]).unfold(0, 17, 1)
    rows = rows[torch.randperm(len(rows), generator=_drawn(58))]
    return _split(rows[:, :-1], rows[:, 1:]), len(known)
