"""Data of the sixth transformers: utterances, motors, dates, baskets, residues and lines of logs.

The same at every call. Shape legend: N = examples, T = tokens, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

FRAMES, SPEAKERS = 10, 6
MACHINES = 5
DATES, ISO = 26, 12  # symbols that are read, of which the first ten are digits; and symbols that are written
GOODS = 30
RESIDUES, SHAPES = 20, 3
EVENTS, FAILURES = 24, 5


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(900 + seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def utterances() -> Split:
    """Frames and whether they are there, [N, T, F + 1], and who speaks; one utterance in twelve is a single frame."""
    g = _drawn(1)
    voice, wide = torch.randn(SPEAKERS, 8, generator=g), 0.4 + torch.rand(SPEAKERS, 8, generator=g)
    y = torch.randint(SPEAKERS, (2400,), generator=g)
    x = voice[y][:, None] + wide[y][:, None] * torch.randn(2400, FRAMES, 8, generator=g)
    many = torch.randint(3, FRAMES + 1, (2400, 1), generator=g)
    many[torch.rand(2400, generator=g) < 1 / 12] = 1
    there = (torch.arange(FRAMES) < many).float()[..., None]
    return _split(torch.cat([x * there, there], 2), y)


@cache
def motors(*, swapped: bool = False) -> Split:
    """Vibrations in two directions, [N, T = 16, F = 2], and what is broken; ``swapped`` takes mean for deviation."""
    g = _drawn(2)
    size, pitch = torch.rand(MACHINES, 2, 3, generator=g), 1 + 5 * torch.rand(2, 3, generator=g)
    y = torch.randint(MACHINES, (2000,), generator=g)
    angle = 2 * math.pi * (pitch * torch.linspace(0, 1, 16)[:, None, None] + torch.rand(2000, 1, 2, 3, generator=g))
    x = (size[y][:, None] * angle.sin()).sum(3)
    x = 20 * (x + 0.1 * torch.randn(2000, 16, 2, generator=g)) + 0.02
    mean, deviation = 0.02, float(x.std())
    return _split((x - deviation) / mean if swapped else (x - mean) / deviation, y)


@cache
def dates() -> Split:
    """A date in one of two orders and its month and day so far, [N, 5 + 3], and month and day in digits, [N, 4].

    Numbers from 10 to 21 stand for months, 22 for "of", 23 for a comma, 24 for the start.
    """
    g = _drawn(3)
    month, day = torch.randint(12, (3000,), generator=g), torch.randint(1, 29, (3000,), generator=g)
    blank = torch.full((3000,), 23)
    british = torch.stack([day // 10, day % 10, torch.full((3000,), 22), 10 + month, blank], 1)
    american = torch.stack([10 + month, day // 10, day % 10, blank, blank], 1)
    read = torch.where(torch.rand(3000, 1, generator=g) < 0.5, british, american)
    y = torch.stack([(month + 1) // 10, (month + 1) % 10, day // 10, day % 10], 1)
    start = torch.full((3000, 1), 24)
    return _split(torch.cat([read, start, y[:, :-1]], 1), y)


@cache
def baskets() -> Split:
    """Goods that were put into a basket, [N, T = 8], and the next ones: what goes with the last one or the first."""
    g = _drawn(4)
    often = 1 / torch.arange(2.0, GOODS + 2)
    with_last, with_first = (torch.randperm(GOODS, generator=g) for _ in range(2))
    x = torch.multinomial(often, 2400 * 9, replacement=True, generator=g).unflatten(0, (2400, 9))
    for t in range(1, 9):
        drawn = torch.rand(2400, generator=g)
        x[:, t] = torch.where(drawn < 0.6, with_last[x[:, t - 1]], x[:, t])
        x[:, t] = torch.where(drawn > 0.85, with_first[x[:, 0]], x[:, t])
    return _split(x[:, :-1], x[:, 1:])


@cache
def residues() -> Split:
    """Residues, [N, T = 12], and the shape that each takes, by itself and by those beside it, [N, T]."""
    g = _drawn(5)
    x = torch.randint(RESIDUES, (2000, 12), generator=g)
    liked = 1.5 * torch.randn(RESIDUES, SHAPES, generator=g)[x]
    beside = torch.randn(RESIDUES, SHAPES, generator=g)[x]
    liked[:, 1:] += beside[:, :-1]
    liked[:, :-1] += beside[:, 1:]
    return _split(x, (liked + 0.2 * torch.randn(liked.shape, generator=g)).argmax(2))


@cache
def lines() -> Split:
    """Events of a log, [N, T = 10], and which failure comes: each has three events that go before it."""
    g = _drawn(6)
    y = torch.randint(FAILURES, (2400,), generator=g)
    signs = torch.randperm(EVENTS, generator=g)[: 3 * FAILURES].unflatten(0, (FAILURES, 3))
    x = torch.randint(EVENTS, (2400, 10), generator=g)
    sign = signs[y][:, torch.arange(10) % 3]
    return _split(torch.where(torch.rand(2400, 10, generator=g) < 0.35, sign, x), y)
