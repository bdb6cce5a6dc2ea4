"""Data of the embedding programs of the sixth generation: numbers of rows, and what follows from them.

The same at every call. Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

TRACKS = (80, 60, 24)
PHRASES, TOPICS = 80, 6
RIDES = (40, 40, 24)
SHOP = 40
TRIPS = (60, 50, 30)
LESSONS = (80, 60)
ALLERGENS = 50


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(9))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(1000 + seed)


def _ids(g: Generator, many: int, sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randint(n, (many,), generator=g) for n in sizes], 1)


def _standard(y: Tensor) -> Tensor:
    return ((y - y.mean()) / y.std())[:, None]


@cache
def tracks() -> Split:
    """Listener, track and hour, [N, 3], and whether the track was heard to its end."""
    g = _drawn(1)
    x = _ids(g, 8000, TRACKS)
    a, b, c = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(TRACKS))
    heard = (a * b).sum(1) + a[:, 0] + b[:, 1] + 0.7 * c[:, 0] + 0.3 * torch.randn(8000, generator=g)
    return _split(x, (heard > 0).long())


@cache
def phrases() -> Split:
    """Eight words, [N, 8], and the topic they are about; half of the words are drawn whatever it is."""
    g = _drawn(2)
    likes = (2.0 * torch.randn(TOPICS, PHRASES, generator=g)).exp()
    y = torch.randint(TOPICS, (4000,), generator=g)
    x = torch.multinomial(likes[y], 8, replacement=True, generator=g)
    other = torch.randint(PHRASES, x.shape, generator=g)
    return _split(torch.where(torch.rand(x.shape, generator=g) < 0.5, other, x), y)


@cache
def rides() -> Split:
    """From, to and hour, [N, 3], and which of five ways to ride was chosen."""
    g = _drawn(3)
    x = _ids(g, 8000, RIDES)
    from_, to, hour = (torch.randn(n, 5, generator=g)[x[:, i]] for i, n in enumerate(RIDES))
    return _split(x, (from_ + to + 0.7 * hour + 0.5 * torch.randn(8000, 5, generator=g)).argmax(1))


@cache
def shop() -> Split:
    """Three goods that were looked at, [N, 3], and the one that was bought, some of which are rare."""
    g = _drawn(4)
    often = 1 / torch.arange(1.0, SHOP + 1)
    x = torch.multinomial(often.sqrt(), 3 * 6000, replacement=True, generator=g).unflatten(0, (6000, 3))
    vector = torch.randn(SHOP, 4, generator=g)
    liked = vector[x].mean(1) @ torch.randn(SHOP, 4, generator=g).T + 0.3 * often.log()
    return _split(x, torch.multinomial((3 * liked).softmax(1), 1, generator=g)[:, 0])


@cache
def trips() -> Split:
    """Town, season's week and company, [N, 3], and a standardised price, in which pairs of them count."""
    g = _drawn(5)
    x = _ids(g, 8000, TRIPS)
    a, b, c = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(TRIPS))
    price = (a * b).sum(1) + 0.7 * (b * c).sum(1) + a[:, 0] + c[:, 1]
    return _split(x, _standard(price + 0.3 * torch.randn(8000, generator=g)))


@cache
def lessons() -> Split:
    """Pupil and lesson, [N, 2], and a standardised mark."""
    g = _drawn(6)
    x = _ids(g, 8000, LESSONS)
    a, b = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(LESSONS))
    able, hard = (torch.randn(n, generator=g)[x[:, i]] for i, n in enumerate(LESSONS))
    return _split(x, _standard(able - hard + 0.5 * (a * b).sum(1) + 0.4 * torch.randn(8000, generator=g)))


@cache
def allergens() -> Split:
    """Six things that were eaten, [N, 6], and which of four complaints came after it."""
    g = _drawn(7)
    x = torch.randint(ALLERGENS, (6000, 6), generator=g)
    blamed = torch.randn(ALLERGENS, 4, generator=g)[x].sum(1)
    return _split(x, (blamed + 0.5 * torch.randn(6000, 4, generator=g)).argmax(1))
