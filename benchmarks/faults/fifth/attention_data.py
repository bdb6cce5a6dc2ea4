"""Data of the fifth transformers: sorted rows, bags of digits, graphs, masked words, a grammar, loads and gestures.

The same at every call. Shape legend: N = examples, T = tokens, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split, digits

SORTED, SYMBOLS = 6, 5  # symbols of a row, and kinds of them
WORDS, MASK = 20, 20  # the word after the last one stands for what is hidden
NODES, SIGNALS = 8, 4
LETTERS = 16
GESTURES = 6


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(700 + seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def rows() -> Split:
    """Symbols and what is sorted of them so far, [N, 2 T - 1], and the same symbols sorted, [N, T]."""
    x = torch.randint(SYMBOLS, (3000, SORTED), generator=_drawn(1))
    y = x.sort(1).values
    return _split(torch.cat([x, y[:, :-1]], 1), y)


@cache
def bags(most: float = 1.0) -> Split:
    """Six digits with ink from 0 to ``most``, [N, T = 6, F = 64], and whether there is a 3 among them."""
    g, of = _drawn(2), digits()

    def drawn(x: Tensor, y: Tensor, many: int) -> tuple[Tensor, Tensor]:
        at = torch.randint(len(x), (many, 6), generator=g)
        return most * (x[at] + 1) / 2, (y[at] == 3).any(1).long()

    return Split(*drawn(of.x, of.y, 2000), *drawn(of.x_test, of.y_test, 600))


@cache
def graphs() -> Split:
    """Signals of nodes and who is linked to whom, [N, T, F + T], and the strongest signal around each, [N, T]."""
    g = _drawn(3)
    signals = torch.randn(2400, NODES, SIGNALS, generator=g)
    links = (torch.rand(2400, NODES, NODES, generator=g) < 0.2).float().triu(1)
    links = links + links.mT
    around = links + torch.eye(NODES)
    y = (around @ signals / around.sum(2, keepdim=True)).argmax(2)
    return _split(torch.cat([signals, links], 2), y)


@cache
def sentences() -> Tensor:
    """Words, [N, T = 9], some of which are frequent; eight in ten follow from the word before."""
    g = _drawn(4)
    often = 1 / torch.arange(1.0, WORDS + 1)
    follows = torch.multinomial(often.sqrt(), WORDS, replacement=True, generator=g)
    x: Tensor = torch.multinomial(often, 2400 * 9, replacement=True, generator=g).unflatten(0, (2400, 9))
    for t in range(1, 9):
        x[:, t] = torch.where(torch.rand(2400, generator=g) < 0.8, follows[x[:, t - 1]], x[:, t])
    return x


@cache
def grammar() -> Split:
    """Letters, [N, T = 14], and the next ones: two orders, between which the letter before the last one decides."""
    g = _drawn(5)
    x = torch.randint(LETTERS, (2000, 15), generator=g)
    orders = torch.stack([torch.randperm(LETTERS, generator=g) for _ in range(2)])
    for t in range(2, 15):
        told = torch.rand(2000, generator=g) < 0.9
        x[:, t] = torch.where(told, orders[x[:, t - 2] % 2, x[:, t - 1]], x[:, t])
    return _split(x[:, :-1], x[:, 1:])


@cache
def loads() -> Split:
    """A day's load and its temperature, three hours a token, [N, T = 8, F = 6], and the next three hours, [N, 3]."""
    g = _drawn(6)
    t, start = torch.arange(27.0), 24 * torch.rand(2000, 1, generator=g)
    clock = 2 * math.pi * (t + start) / 24
    warm = torch.randn(2000, 1, generator=g) + 0.5 * (clock - 1).sin()
    used = clock.sin() + 0.5 * (2 * clock + 0.5).sin() - 0.4 * warm + 0.4 * torch.randn(2000, 1, generator=g)
    used = used + 0.15 * torch.randn(2000, 27, generator=g)
    x = torch.cat([used[:, :24].unflatten(1, (8, 3)), warm[:, :24].unflatten(1, (8, 3))], 2)
    return _split(x, used[:, 24:])


@cache
def gestures() -> Split:
    """Accelerations in three directions, [N, T = 16, F = 3], and the gesture; faster or slower, and with noise."""
    g = _drawn(7)
    size, phase = torch.randn(GESTURES, 3, 3, generator=g), 2 * math.pi * torch.rand(GESTURES, 3, 3, generator=g)
    y = torch.randint(GESTURES, (2000,), generator=g)
    speed, late = 0.8 + 0.4 * torch.rand(2000, 1, generator=g), 0.1 * torch.rand(2000, 1, generator=g)
    t = 2 * math.pi * (speed * torch.linspace(0, 1, 16) + late)
    angle = t[:, :, None, None] * torch.arange(1.0, 4.0) + phase[y][:, None]
    x = (size[y][:, None] * angle.sin()).sum(3) + 0.9 * torch.randn(2000, 16, 3, generator=g)
    return _split(x / 2, y)
