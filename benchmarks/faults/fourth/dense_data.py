"""Data of the fourth generation's dense programs. The same at every call.

Shape legend: N = examples, F = features, V = words.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split


def _cut(x: Tensor, y: Tensor, test: int = 600) -> Split:
    """Keep the last ones, of what was drawn independently."""
    return Split(x[:-test], y[:-test], x[-test:], y[-test:])


@cache
def income() -> Split:
    """Whether somebody earns much, by four numbers and three questions with some answers each: [N, 23]."""
    g = drawing.drawn(61)
    numbers = torch.randn(3200, 4, generator=g)
    answers, worth = [], 2.2 * numbers[:, 0] - numbers[:, 0].square() + 1.5 * numbers[:, 1] * (numbers[:, 2] > 0)
    for levels in (8, 5, 6):
        answer = torch.randint(levels, (3200,), generator=g)
        worth = worth + 1.5 * torch.randn(levels, generator=g)[answer]
        answers.append(F.one_hot(answer, levels).float())
    worth = worth + 0.5 * torch.randn(3200, generator=g)
    return _cut(torch.cat([numbers, *answers], 1), (worth > worth.median()).long())


@cache
def weather(*, raw: bool = False) -> Split:
    """Tomorrow's temperature by what was measured today, standardised or in the units of the instruments: [N, 8]."""
    g = drawing.drawn(62)
    x = torch.randn(3200, 8, generator=g)
    season = 2 * x[:, 5]
    y = 1.5 * season.sin() + x[:, 1] + 0.7 * x[:, 0] * x[:, 2].tanh() - 0.5 * x[:, 6] + 0.4 * x[:, 7].abs()
    y = y + 0.3 * torch.randn(3200, generator=g)
    # Pressure in hPa, temperature in K, humidity, wind's direction in degrees, year, day, height, wind.
    mean = torch.tensor([1013.0, 285.0, 60.0, 180.0, 2005.0, 183.0, 500.0, 8.0])
    spread = torch.tensor([8.0, 7.0, 15.0, 80.0, 6.0, 70.0, 150.0, 2.0])
    return _cut(mean + spread * x if raw else x, ((y - y.mean()) / y.std())[:, None])


@cache
def arm(joints: int = 4) -> Split:
    """Where the hand of an arm is, by the angles of its joints: [N, 4] to [N, 2]."""
    x = 2 * torch.rand(4000, joints, generator=drawing.drawn(63)) - 1
    angle, length = (0.5 * math.pi * x).cumsum(1), torch.tensor([1.0, 0.8, 0.6, 0.4])
    y = torch.stack([(length * angle.cos()).sum(1), (length * angle.sin()).sum(1)], 1)
    return _cut(x * math.sqrt(3), (y - y.mean(0)) / y.std(0))


@cache
def terrain(kinds: int = 5) -> Split:
    """What grows at a place, by its height, slope and wetness: [N, 3], as many of each kind."""
    x = torch.randn(4000, 3, generator=drawing.drawn(64))
    value = (1.7 * x[:, 0]).sin() + x[:, 1] * x[:, 2] + 0.5 * (2 * x[:, 2]).cos()
    return _cut(x, torch.bucketize(value, value.quantile(torch.arange(1, kinds) / kinds)))


@cache
def topics(kinds: int = 6, words: int = 120) -> Split:
    """How often each word stands in a document, of which one in thirty is empty: [N, V], six topics."""
    g = drawing.drawn(65)
    common = torch.randn(words, generator=g).exp()
    share = common * (1.1 * torch.randn(kinds, words, generator=g)).exp()
    y = torch.randint(kinds, (3000,), generator=g)
    length = torch.randint(8, 25, (3000, 1), generator=g) * (torch.rand(3000, 1, generator=g) > 1 / 30)
    drawn = torch.multinomial(share[y], 24, replacement=True, generator=g)
    return _cut((F.one_hot(drawn, words) * (torch.arange(24) < length)[..., None]).sum(1).float(), y)


@cache
def ratings() -> Split:
    """How much a reader likes a book, by ten features of each: [N, 20] to [N, 1]."""
    g = drawing.drawn(66)
    x = torch.randn(4000, 20, generator=g)
    readers, books = (torch.tanh(x[:, i : i + 10] @ torch.randn(10, 4, generator=g) / 2) for i in (0, 10))
    y = (readers * books).sum(1, keepdim=True)
    return _cut(x, y / y.std() + 0.3 * torch.randn(4000, 1, generator=g))


@cache
def spectra(kinds: int = 5, channels: int = 48) -> Split:
    """Spectra of mixtures, in which one of five substances is the most: [N, F], standardised."""
    g = drawing.drawn(67)
    at, place = torch.arange(float(channels)), channels * torch.rand(kinds, 4, 1, generator=g)
    lines = (torch.rand(kinds, 4, 1, generator=g) * (-((at - place) / 2.5).square()).exp()).sum(1)
    share = torch.rand(3000, kinds, generator=g)
    x = share @ lines + torch.rand(3000, 1, generator=g) * (-at / 30).exp()
    x = x + 0.02 * torch.randn(x.shape, generator=g)
    return _cut((x - x.mean(0)) / x.std(0), share.argmax(1))


@cache
def genes(kinds: int = 5) -> Split:
    """Which of five types a cell is, by 16 genes of which some act together, up or down: [N, 16]."""
    g = drawing.drawn(68)
    x = torch.randn(4000, 16, generator=g)
    active = (x @ torch.randn(16, 6, generator=g)).abs() / 4
    return _cut(x, (active @ torch.randn(6, kinds, generator=g) + 0.5 * x[:, :kinds]).argmax(1))


@cache
def holes() -> Split:
    """How many holes a handwritten digit has, printed white on black, with noise: [N, 64], three classes."""
    g, many = drawing.drawn(69), torch.tensor([1, 0, 0, 0, 1, 0, 1, 0, 2, 1])
    split = data.changed(data.digits(), lambda x: 0.3 * torch.randn(x.shape, generator=g) - x)
    return split._replace(y=many[split.y], y_test=many[split.y_test])
