"""Letters, clicks, facts, baskets, prices and others for the embedding programs of the third generation.

The same at every call. Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split, cancer, digits

LETTERS, BUCKETS, LANGUAGES = 12, 600, 4
READERS, ARTICLES = 120, 80
SIDE, SHIFTS = 8, torch.tensor([[0, 1], [1, 0], [2, 1], [-1, 2], [1, -2]])
BINS, LEVELS = 8, 17
VOCABULARY, GOODS, TOKENS = 200, 100, 400
TERMS, FIELDS, HINTS, AREAS = 250, 6, 24, 12
GUESTS, DISHES, KINDS, SIZES = 90, 70, 30, 30


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn() -> Generator:
    return torch.Generator().manual_seed(31)


@cache
def languages() -> Split:
    """Words of ten letters as their trigrams, hashed into buckets, [N, 8], and the language of each."""
    g = _drawn()
    chances = (1.3 * torch.randn(LANGUAGES, LETTERS, LETTERS, generator=g)).softmax(2)
    y = torch.randint(LANGUAGES, (4000,), generator=g)
    word = [torch.randint(LETTERS, (4000,), generator=g)]
    for _ in range(9):
        word.append(torch.multinomial(chances[y, word[-1]], 1, generator=g)[:, 0])
    letters = torch.stack(word, 1)
    trigrams = letters[:, :-2] * LETTERS**2 + letters[:, 1:-1] * LETTERS + letters[:, 2:]
    return _split(trigrams * 2654435761 % 104729 % BUCKETS, y)


@cache
def articles() -> Split:
    """Reader and article, [N, 2], and whether the one opened the other, by hidden tastes."""
    g = _drawn()
    taste = torch.randn(READERS, 2, generator=g) @ torch.randn(2, ARTICLES, generator=g)
    x = torch.stack([torch.randint(n, (9000,), generator=g) for n in (READERS, ARTICLES)], 1)
    opened = torch.rand(9000, generator=g) < (8 * taste[x[:, 0], x[:, 1]]).sigmoid()
    return _split(x, opened.long())


@cache
def facts() -> Split:
    """A square of a map and a direction, [N, 2], and the square that lies there; one in twenty is wrong."""
    g = _drawn()
    at = torch.randint(SIDE, (12000, 2), generator=g)
    way = torch.randint(len(SHIFTS), (12000,), generator=g)
    to = at + SHIFTS[way]
    kept = ((to >= 0) & (to < SIDE)).all(1)
    at, way, to = at[kept], way[kept], to[kept]
    y = to[:, 0] * SIDE + to[:, 1]
    wrong = torch.rand(len(y), generator=g) < 0.05
    y = torch.where(wrong, torch.randint(SIDE**2, y.shape, generator=g), y)
    return _split(torch.stack([at[:, 0] * SIDE + at[:, 1], way], 1), y)


@cache
def binned() -> Split:
    """Breast cancer: of each feature the eighth of all values that its value falls in, [N, 30]."""
    split = cancer()
    edges = split.x.quantile(torch.arange(1, BINS) / BINS, 0).T.contiguous()
    place = BINS * torch.arange(30)

    def ids(x: Tensor) -> Tensor:
        return torch.searchsorted(edges, x.T.contiguous()).T + place

    return split._replace(x=ids(split.x), x_test=ids(split.x_test))


@cache
def grey() -> Split:
    """Digits: a word for each pair of pixel and grey level, [N, 64]."""
    split = digits()
    place = LEVELS * torch.arange(64)
    return split._replace(
        x=((split.x + 1) * 8).round().long() + place, x_test=((split.x_test + 1) * 8).round().long() + place
    )


@cache
def prose() -> Split:
    """Two words by Zipf's law, [N, 2], and the next, which the last one decides seven times in ten."""
    g = _drawn()
    often = 1 / torch.arange(8.0, VOCABULARY + 8)
    words = torch.multinomial(often, 3 * 8000, replacement=True, generator=g).reshape(8000, 3)
    rule = torch.randperm(VOCABULARY, generator=g)
    ruled = torch.rand(8000, generator=g) < 0.7
    return _split(words[:, :2], torch.where(ruled, rule[words[:, 1]], words[:, 2]))


@cache
def searches() -> Split:
    """Four words of a search, [N, 4], one of them any, and what was bought."""
    g = _drawn()
    of = torch.randint(TOKENS, (GOODS, 6), generator=g)
    y = torch.randint(GOODS, (6000,), generator=g)
    x = of[y].gather(1, torch.rand(6000, 6, generator=g).argsort(1)[:, :4])
    x[:, 0] = torch.randint(TOKENS, (6000,), generator=g)
    return _split(x, y)


@cache
def _terms() -> Tensor:
    return (1.1 * torch.randn(FIELDS, TERMS - 1, generator=_drawn())).exp()


@cache
def vectors(width: int = HINTS) -> Tensor:
    """Word vectors from elsewhere, [250, 24], which know half of what matters."""
    g = _drawn()
    known = _terms().log()[: FIELDS // 2].T @ torch.randn(FIELDS // 2, width, generator=g)
    return torch.cat([torch.zeros(1, width), 0.4 * known + 0.4 * torch.randn(TERMS - 1, width, generator=g)])


@cache
def notes() -> Split:
    """Up to 14 words and then zeros, [N, 14], and their field; one note in fifty is empty."""
    g = _drawn()
    y = torch.randint(FIELDS, (4000,), generator=g)
    x = 1 + torch.multinomial(_terms()[y], 14, replacement=True, generator=g)
    length = torch.randint(4, 15, (4000,), generator=g)
    length[torch.rand(4000, generator=g) < 0.02] = 0
    return _split(x * (torch.arange(14) < length[:, None]), y)


@cache
def mixed() -> Split:
    """Ten words of one area, [N, 10], and the class, of which each has several areas that are not alike."""
    g = _drawn()
    often = (1.6 * torch.randn(AREAS, 200, generator=g)).exp()
    area = torch.randint(AREAS, (4000,), generator=g)
    return _split(torch.multinomial(often[area], 10, replacement=True, generator=g), area % 4)


@cache
def meals() -> Split:
    """Guest and dish, [N, 2], and a rating about 3.5, [N, 1]."""
    g = _drawn()
    x = torch.stack([torch.randint(n, (7000,), generator=g) for n in (GUESTS, DISHES)], 1)
    kind, good = 0.6 * torch.randn(GUESTS, generator=g), 0.6 * torch.randn(DISHES, generator=g)
    taste = 0.5 * torch.randn(GUESTS, 2, generator=g) @ torch.randn(2, DISHES, generator=g)
    y = 3.5 + kind[x[:, 0]] + good[x[:, 1]] + taste[x[:, 0], x[:, 1]] + 0.2 * torch.randn(7000, generator=g)
    return _split(x, y[:, None])


@cache
def prices() -> Split:
    """Numbers of 900 articles as kind and size, [N, 2], and a standardised price, [N, 1]."""
    g = _drawn()
    price = torch.randn(KINDS, 2, generator=g) @ torch.randn(2, SIZES, generator=g)
    number = torch.randint(KINDS * SIZES, (6000,), generator=g)
    x = torch.stack([number // SIZES, number % SIZES], 1)
    y = price[x[:, 0], x[:, 1]] + 0.15 * torch.randn(6000, generator=g)
    return _split(x, ((y - y.mean()) / y.std())[:, None])
