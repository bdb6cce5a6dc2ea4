"""Texts, visits, clicks and likings for the embedding programs of the second generation. The same at every call.

Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

FIELDS = (30, 20, 50, 12, 8)  # values of each field of a click
SHOPS, GOODS, DAYS = 40, 25, 7
VALENCED, KEYS, ITEMS = 300, 12, 3000


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(2))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn() -> Generator:
    return torch.Generator().manual_seed(12)


@cache
def contexts(words: int = 160, themes: int = 8) -> Split:
    """Word and context by Zipf's law, [N, 2], and whether they were seen together, by their themes."""
    g = _drawn()
    theme, often = torch.arange(words) % themes, 1 / torch.arange(4.0, words + 4)
    y = torch.randint(2, (8000,), generator=g)
    word = torch.multinomial(often, 8000, replacement=True, generator=g)
    drawn = torch.multinomial(often, 8000, replacement=True, generator=g)
    beside = torch.multinomial(often * (theme[word][:, None] == theme), 1, generator=g)[:, 0]
    return _split(torch.stack([word, torch.where(y == 1, beside, drawn)], 1), y)


@cache
def visits() -> Split:
    """Shop, goods, day and two numbers, [N, 5], and how many were sold, [N, 1]: often none."""
    g = _drawn()
    which = torch.stack([torch.randint(n, (5000,), generator=g) for n in (SHOPS, GOODS, DAYS)], 1)
    numbers = torch.randn(5000, 2, generator=g)
    effects = [0.7 * torch.randn(n, generator=g) for n in (SHOPS, GOODS, DAYS)]
    rate = 1 + sum(effect[which[:, i]] for i, effect in enumerate(effects)) + 0.4 * numbers[:, 0]
    sold = torch.poisson((rate + 0.2 * numbers[:, 1].square()).clamp(max=4).exp(), generator=g)
    return _split(torch.cat([which.float(), numbers], 1), sold[:, None])


@cache
def clicks() -> Split:
    """One value of each of five fields, [N, 5], and whether somebody clicked, by products of hidden tastes."""
    g = _drawn()
    x = torch.stack([torch.randint(n, (8000,), generator=g) for n in FIELDS], 1)
    tastes = torch.stack([torch.randn(n, 3, generator=g)[x[:, i]] for i, n in enumerate(FIELDS)], 1)
    logit = 0.6 * (tastes.sum(1).square() - tastes.square().sum(1)).sum(1) / 2
    return _split(x, (logit + 0.5 * torch.randn(8000, generator=g) > 0).long())


@cache
def places(words: int = 48, length: int = 14, classes: int = 4) -> Split:
    """Words, [N, 14], and the group that most words of the first half are of; the second half has one of another."""
    g = _drawn()
    y = torch.randint(classes, (4000,), generator=g)
    other = (y + torch.randint(1, classes, (4000,), generator=g)) % classes
    half = torch.arange(length) < length // 2
    group = torch.where(half, y[:, None], other[:, None])
    free = torch.rand(4000, length, generator=g) < 0.3
    group = torch.where(free, torch.randint(classes, (4000, length), generator=g), group)
    return _split(group + classes * torch.randint(words // classes, (4000, length), generator=g), y)


@cache
def likings(items: int = 120, classes: int = 6) -> Split:
    """An item and two others, [N, 3], and which of them is of its class."""
    g = _drawn()
    anchor = torch.randint(items, (6000,), generator=g)
    alike = (anchor + classes * torch.randint(1, items // classes, (6000,), generator=g)) % items
    other = (anchor + torch.randint(1, classes, (6000,), generator=g)) % classes
    other = other + classes * torch.randint(items // classes, (6000,), generator=g)
    y = torch.randint(2, (6000,), generator=g)
    return _split(torch.stack([anchor, torch.where(y == 0, alike, other), torch.where(y == 0, other, alike)], 1), y)


@cache
def preferences(users: int = 100, items: int = 60, rank: int = 2) -> Split:
    """A user and two items, [N, 3], and which of them is preferred."""
    g = _drawn()
    taste = torch.randn(users, rank, generator=g) @ torch.randn(rank, items, generator=g)
    taste = taste + 0.5 * torch.randn(items, generator=g)
    user = torch.randint(users, (9000,), generator=g)
    a, b = torch.randint(items, (2, 9000), generator=g)
    return _split(torch.stack([user, a, b], 1), (taste[user, b] > taste[user, a]).long())


@cache
def topics(stops: int = 16, words: int = 200, classes: int = 3) -> Split:
    """Texts of 12 words and a stop word again and again, [N, 28], and their topics, of which three in ten are drawn."""
    g = _drawn()
    often = (0.9 * torch.randn(classes, words - 1, generator=g)).exp()
    y = torch.randint(classes, (4000,), generator=g)
    x = 1 + torch.multinomial(often[y], 12, replacement=True, generator=g)
    split = _split(torch.cat([x, torch.zeros(4000, stops, dtype=torch.long)], 1), y)
    wrong = torch.rand(len(split.y), generator=g) < 0.3
    return split._replace(y=torch.where(wrong, torch.randint(classes, split.y.shape, generator=g), split.y))


@cache
def seasons(*, scaled: bool = True) -> Split:
    """Visits where a year and a price may be left as they are; targets are standardised logarithms."""
    x, y, x_test, y_test = visits()
    if not scaled:
        as_they_are = torch.tensor([1, 1, 1, 4, 150.0]), torch.tensor([0, 0, 0, 2012, 900.0])
        x, x_test = x * as_they_are[0] + as_they_are[1], x_test * as_they_are[0] + as_they_are[1]
    mean, std = y.log1p().mean(), y.log1p().std()
    return Split(x, (y.log1p() - mean) / std, x_test, (y_test.log1p() - mean) / std)


@cache
def valences() -> Tensor:
    """How friendly each word is, [300]."""
    return torch.randn(VALENCED, generator=_drawn())


@cache
def reviews(few: int = 1200) -> Split:
    """Texts of 15 words, [N, 15], and whether they are friendly, by most of them."""
    g = _drawn()
    x = torch.randint(VALENCED, (few, 15), generator=g)
    return _split(x, (valences()[x].sum(1) > 0).long())


@cache
def grammar(words: int = 36, kinds: int = 6) -> Split:
    """Three words, [N, 3], and the next one, by the kinds of the last two; one in eight is any word."""
    g = _drawn()
    x = torch.randint(words, (7000, 3), generator=g)
    rule = torch.randperm(words, generator=g)
    y = rule[x[:, 1] % kinds * kinds + x[:, 2] % kinds]
    return _split(x, torch.where(torch.rand(7000, generator=g) < 0.12, torch.randint(words, (7000,), generator=g), y))


@cache
def sessions(classes: int = 4) -> Split:
    """Ten items of very many, [N, 10], of which two are keys of a class."""
    g = _drawn()
    x = torch.randint(classes * KEYS, ITEMS, (4000, 10), generator=g)
    y = torch.randint(classes, (4000,), generator=g)
    at = torch.rand(4000, 10, generator=g).argsort(1)[:, :2]
    keys = y[:, None] * KEYS + torch.randint(KEYS, (4000, 2), generator=g)
    return _split(x.scatter(1, at, keys), y)
