"""Data of the embedding programs of the fifth generation: numbers of rows, and what follows from them.

The same at every call. Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

INGREDIENTS, PLACES = 60, 24
TERMS, TRAITS, TOGETHER = 60, 40, 8
HOSPITAL = (15, 25, 20, 7)
GUESTS, HOTELS = 100, 60
MENU = (40, 30, 50)
CUSTOMERS, GOODS = 80, 50
WORDS = 60
BOOKINGS = (30, 24, 12, 20)
ADS = (40, 30, 25, 10)


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(8))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(800 + seed)


def _ids(g: Generator, many: int, sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randint(n, (many,), generator=g) for n in sizes], 1)


def _standard(y: Tensor) -> Tensor:
    return ((y - y.mean()) / y.std())[:, None]


@cache
def recipes() -> Split:
    """Three to seven ingredients, numbered from 1, and zeros up to 24 places, [N, 24]; standardised calories."""
    g = _drawn(1)
    x = 1 + torch.randint(INGREDIENTS, (6000, PLACES), generator=g)
    many = torch.randint(3, 8, (6000, 1), generator=g)
    x = x.masked_fill(torch.arange(PLACES) >= many, 0)
    rich = torch.randn(INGREDIENTS + 1, generator=g)
    rich[0] = 0.0
    return _split(x, _standard(rich[x].sum(1) + 0.3 * torch.randn(6000, generator=g)))


@cache
def products() -> Split:
    """Five terms of a query, four traits of what was bought then, [N, 9], and its place among eight, [N]."""
    g = _drawn(2)
    wish = torch.randn(6000, 4, generator=g)
    terms, traits = torch.randn(TERMS, 4, generator=g), torch.randn(TRAITS, 4, generator=g)
    asked = torch.multinomial((1.5 * wish @ terms.T).exp(), 5, generator=g)
    x = torch.cat([asked, torch.multinomial((1.5 * wish @ traits.T).exp(), 4, generator=g)], 1)
    return Split(x[:4800], torch.arange(4800) % TOGETHER, x[4800:], torch.arange(1200) % TOGETHER)


@cache
def stays() -> Split:
    """Ward, diagnosis, doctor and weekday, [N, 4], and which of four lengths a stay had."""
    g = _drawn(3)
    x = _ids(g, 7000, HOSPITAL)
    a, b, c, d = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(HOSPITAL))
    long = (a * b).sum(1) + b[:, 0] + 0.7 * c[:, 0] + 0.5 * d[:, 0] + 0.3 * torch.randn(7000, generator=g)
    return _split(x, torch.bucketize(long, long.quantile(torch.tensor([0.25, 0.5, 0.75]))))


@cache
def guests() -> Split:
    """Guest and hotel, [N, 2], and whether the one came back to the other."""
    g = _drawn(4)
    x = _ids(g, 8000, (GUESTS, HOTELS))
    a, b = torch.randn(GUESTS, 2, generator=g)[x[:, 0]], torch.randn(HOTELS, 2, generator=g)[x[:, 1]]
    good = torch.randn(HOTELS, generator=g)[x[:, 1]]
    return _split(x, ((a * b).sum(1) + good + 0.3 * torch.randn(8000, generator=g) > 0).long())


@cache
def menu() -> Split:
    """Starter, main dish and wine, [N, 3], and a standardised tip, [N, 1]: wines suit dishes, or don't."""
    g = _drawn(5)
    x = _ids(g, 7000, MENU)
    a, b, c = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(MENU))
    return _split(x, _standard(a[:, 0] + 0.7 * (b * c).sum(1) + c[:, 0] + 0.3 * torch.randn(7000, generator=g)))


@cache
def orders(*, numbered: bool = False) -> Split:
    """Customer, goods and a standardised amount, [N, 3], and whether they were sent back; ``numbered`` adds a number.

    That is the customer's, from 10,000 on, beside the amount.
    """
    g = _drawn(6)
    x, amount = _ids(g, 7000, (CUSTOMERS, GOODS)), torch.randn(7000, generator=g)
    a, b = torch.randn(CUSTOMERS, 2, generator=g)[x[:, 0]], torch.randn(GOODS, 2, generator=g)[x[:, 1]]
    back = a[:, 0] + b[:, 0] + 0.7 * a[:, 1] * b[:, 1] + 0.5 * amount + 0.3 * torch.randn(7000, generator=g) > 0
    number = 10_000.0 + 731.0 * x[:, :1]
    return _split(torch.cat([x.float(), amount[:, None], *([number] if numbered else [])], 1), back.long())


@cache
def together(*, never: bool = False) -> Split:
    """Two words, [N, 2], and the logarithm of how often they were met together, [N, 1]; ``never`` adds those of 0."""
    g = _drawn(7)
    a, b = torch.randn(WORDS, 3, generator=g), torch.randn(WORDS, 3, generator=g)
    often = torch.poisson((1.0 + 0.8 * a @ b.T + torch.randn(WORDS, generator=g)).exp().clamp(max=300.0), generator=g)
    pairs = torch.cartesian_prod(torch.arange(WORDS), torch.arange(WORDS))
    met = often.flatten() > 0
    split = _split(pairs[met], often.flatten()[met].log()[:, None])
    if not never:
        return split
    zeros = torch.full((int((~met).sum()), 1), -torch.inf)
    return split._replace(x=torch.cat([split.x, pairs[~met]]), y=torch.cat([split.y, zeros]))


@cache
def bookings() -> Split:
    """Airport, hour, month and age, [N, 4], and whether somebody booked: each counts, and two of them together."""
    g = _drawn(8)
    x = _ids(g, 7000, BOOKINGS)
    own = sum(torch.randn(n, generator=g)[x[:, i]] for i, n in enumerate(BOOKINGS))
    both = torch.randn(BOOKINGS[0], BOOKINGS[2], generator=g)[x[:, 0], x[:, 2]]
    return _split(x, (own + both + 0.3 * torch.randn(7000, generator=g) > 0).long())


@cache
def ads() -> Split:
    """Site, ad, town and device, [N, 4], and whether somebody clicked: by pairs of fields."""
    g = _drawn(9)
    x = _ids(g, 8000, ADS)
    a, b, c, d = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(ADS))
    liked = (a * b).sum(1) + 0.7 * (c * d).sum(1) + a[:, 0] + c[:, 0] + 0.3 * torch.randn(8000, generator=g)
    return _split(x, (liked > 0).long())
