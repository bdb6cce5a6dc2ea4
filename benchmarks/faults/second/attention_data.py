"""Data of the second transformers (pieces of waves and of digits, documents, marked rows, point sets, English text).

Shape legend: N = examples, T = tokens, F = features.
"""

from __future__ import annotations

from functools import cache

import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.data import Split
from benchmarks.faults.second.convolutional_data import signals

WORDS, TOPICS, SYMBOLS = 60, 6, 8


def _cut(x: Tensor, y: Tensor) -> Split:
    first = 3 * len(x) // 4
    return Split(x[:first], y[:first], x[first:], y[first:])


@cache
def waves() -> Split:
    """Waves of five kinds in pieces, [N, T = 12, F = 4]."""
    return data.changed(signals(), lambda x: x.reshape(-1, 12, 4))


@cache
def stamped(first: float, step: float) -> Split:
    """Waves in pieces, each of which says when it was measured, [N, T = 12, F = 5]."""
    times = (first + step * torch.arange(12.0)).reshape(1, 12, 1)
    return data.changed(waves(), lambda x: torch.cat([x, times.expand(len(x), -1, -1)], 2))


@cache
def pieces() -> Split:
    """Digits in pieces of two by two pixels, [N, T = 16, F = 4]."""
    return data.changed(
        data.digits("image"), lambda x: x.reshape(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4).contiguous()
    )


@cache
def documents() -> Split:
    """Words of documents on six topics, [N, T = 24]."""
    g = torch.Generator().manual_seed(21)
    often = (1.2 * torch.randn(TOPICS, WORDS, generator=g)).softmax(1)
    y = torch.randint(TOPICS, (1600,), generator=g)
    return _cut(torch.multinomial(often[y], 24, replacement=True, generator=g), y)


@cache
def marked() -> Split:
    """Rows of symbols of which one is marked, [N, T = 10, F = 9]: name that one."""
    g = torch.Generator().manual_seed(22)
    symbols, place = torch.randint(SYMBOLS, (1600, 10), generator=g), torch.randint(10, (1600,), generator=g)
    marks = F.one_hot(place, 10)[..., None]
    x = torch.cat([F.one_hot(symbols, SYMBOLS), 0.5 * marks], 2)
    return _cut(x, symbols[torch.arange(1600), place])


@cache
def points() -> Split:
    """Sets of points in the plane, [N, T = 8, F = 2]: how far the farthest is from their centre, and the spread."""
    g = torch.Generator().manual_seed(23)
    x = torch.randn(1600, 8, 2, generator=g) * (0.5 + torch.rand(1600, 1, 2, generator=g))
    away = (x - x.mean(1, keepdim=True)).norm(dim=2)
    y = torch.stack([away.amax(1), x[..., 0].std(1)], 1)
    return _cut(x, (y - y.mean(0)) / y.std(0))


@cache
def text() -> tuple[Split, int]:
    """English text of scikit-learn's description of iris, [N, T = 24] and the next characters; how many there are."""
    whole = " ".join(datasets.load_iris().DESCR.lower().split())[:1500]
    known = {letter: number for number, letter in enumerate(sorted(set(whole)))}
    codes = torch.tensor([known[letter] for letter in whole])
    rows = codes.unfold(0, 25, 1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(24))
    return _cut(rows[order][:, :-1], rows[order][:, 1:]), len(known)
