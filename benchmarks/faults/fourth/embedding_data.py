"""Songs, shops, friends, opinions, tastes, trees, papers, visits, deals, fares and histories, drawn here.

The same at every call. Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

SONGS, GENRES = 120, 6
STORES = (30, 7, 25)  # shop, day, kind of goods
PEOPLE, CIRCLES = 120, 6
WORDS, DENIALS, BUCKETS = 60, 6, 2000
READERS, BOOKS, BITS = 100, 80, 16
NODES = 63
TERMS, FIELDS = 200, 6
VISITORS, PAGES = 50, 30
DEALS = (12, 8, 6, 10)
PORTS, AIRLINES = 20, 8
CLIENTS, FILMS, SEEN = 80, 90, 8


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(6))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(600 + seed)


def _ids(g: Generator, many: int, sizes: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randint(n, (many,), generator=g) for n in sizes], 1)


def _standard(y: Tensor) -> Tensor:
    return ((y - y.mean()) / y.std())[:, None]


@cache
def playlists() -> Split:
    """The last three songs, [N, 3], and the next one: seven times in ten what mostly follows, else of the genre."""
    g = _drawn(1)
    x = torch.randint(SONGS, (7000, 3), generator=g)
    follows = torch.randperm(SONGS, generator=g)
    alike = x[:, 2] % GENRES + GENRES * torch.randint(SONGS // GENRES, (7000,), generator=g)
    return _split(x, torch.where(torch.rand(7000, generator=g) < 0.7, follows[x[:, 2]], alike))


@cache
def stores() -> Split:
    """Shop, day and goods, [N, 3], and standardised sales, [N, 1]: what sells differs by shop and by day."""
    g = _drawn(2)
    x = _ids(g, 6000, STORES)
    a, b, c = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(STORES))
    return _split(x, _standard((a * c).sum(1) + (b * c).sum(1) + 0.3 * torch.randn(6000, generator=g)))


@cache
def friends() -> Split:
    """Two people, [N, 2], and whether they know each other: mostly within a circle, and some know many."""
    g = _drawn(3)
    y, often = torch.randint(2, (8000,), generator=g), 0.3 + torch.rand(PEOPLE, generator=g)
    a, any_ = (torch.multinomial(often, 8000, replacement=True, generator=g) for _ in range(2))
    near = a % CIRCLES + CIRCLES * torch.randint(PEOPLE // CIRCLES, (8000,), generator=g)
    return _split(torch.stack([a, torch.where(y == 1, near, any_)], 1), y)


@cache
def opinions() -> Split:
    """Twelve words and their pairs, hashed, [N, 23], and whether they praise; a denial turns the next word around."""
    g = _drawn(4)
    x = torch.randint(WORDS, (6000, 12), generator=g)
    denies = torch.rand(6000, 12, generator=g) < 0.1
    x = torch.where(denies, torch.randint(DENIALS, (6000, 12), generator=g), x)
    tone = torch.randn(WORDS, generator=g)
    tone[:DENIALS] = 0.0
    turned = torch.cat([torch.ones(6000, 1), 1 - 2 * (x[:, :-1] < DENIALS).float()], 1)
    pairs = WORDS + (x[:, :-1] * 7919 + x[:, 1:] * 31) % BUCKETS
    return _split(torch.cat([x, pairs], 1), ((turned * tone[x]).sum(1) > 0).long())


@cache
def tastes() -> Split:
    """Reader and book, [N, 2], and whether the one liked the other."""
    g = _drawn(5)
    x = _ids(g, 9000, (READERS, BOOKS))
    a, b = torch.randn(READERS, 3, generator=g)[x[:, 0]], torch.randn(BOOKS, 3, generator=g)[x[:, 1]]
    return _split(x, ((a * b).sum(1) + 0.3 * torch.randn(9000, generator=g) > 0).long())


@cache
def tree() -> Split:
    """Two nodes of a binary tree, [N, 2], and whether one lies above the other or is the same."""
    g = _drawn(6)
    above = [[node] for node in range(NODES)]
    for node in range(1, NODES):
        above[node] += above[(node - 1) // 2]
    pairs = torch.tensor([[a, b] for a in range(NODES) for b in above[a]])
    y = torch.randint(2, (6000,), generator=g)
    lies = pairs[torch.randint(len(pairs), (6000,), generator=g)]
    x = torch.where(y[:, None] == 1, lies, torch.randint(NODES, (6000, 2), generator=g))
    related = torch.zeros(NODES, NODES, dtype=torch.long)
    related[pairs[:, 0], pairs[:, 1]] = related[pairs[:, 1], pairs[:, 0]] = 1
    return _split(x, related[x[:, 0], x[:, 1]])


@cache
def papers() -> Split:
    """Ten words of a paper, [N, 10], and its field."""
    g = _drawn(7)
    often = (1.2 * torch.randn(FIELDS, TERMS, generator=g)).exp()
    y = torch.randint(FIELDS, (4000,), generator=g)
    return _split(torch.multinomial(often[y], 10, replacement=True, generator=g), y)


@cache
def visits(unit: float = 1.0) -> Split:
    """Visitor, page and how long, in standard deviations times a unit, [N, 3], and whether somebody bought."""
    g = _drawn(8)
    x, long = _ids(g, 7000, (VISITORS, PAGES)), torch.randn(7000, generator=g)
    a, b = torch.randn(VISITORS, 2, generator=g)[x[:, 0]], torch.randn(PAGES, 2, generator=g)[x[:, 1]]
    bought = a[:, 0] + b[:, 0] + 0.5 * a[:, 1] * b[:, 1] + 0.3 * long + 0.3 * torch.randn(7000, generator=g) > 0
    return _split(torch.cat([x.float(), unit * long[:, None]], 1), bought.long())


@cache
def deals() -> Split:
    """Values of four fields, [N, 4], and which of four things was done, by pairs of fields."""
    g = _drawn(9)
    x = _ids(g, 8000, DEALS)
    a, b, c, d = (torch.randn(n, 2, generator=g)[x[:, i]] for i, n in enumerate(DEALS))
    return _split(x, 2 * ((a * b).sum(1) > 0).long() + ((c * d).sum(1) > 0).long())


@cache
def fares() -> Split:
    """Two airports and an airline, [N, 3], and a fare of some hundreds, [N, 1], in hundreds."""
    g = _drawn(10)
    x = _ids(g, 6000, (PORTS, PORTS, AIRLINES))
    at, dear = torch.rand(PORTS, 2, generator=g), 0.4 * torch.randn(AIRLINES, generator=g)
    far = (at[x[:, 0]] - at[x[:, 1]]).norm(dim=1)
    fees = 0.4 * torch.randn(PORTS, generator=g)
    y = 2.0 + 2.0 * far + fees[x[:, 0]] + fees[x[:, 1]] + dear[x[:, 2]] + 0.2 * torch.randn(6000, generator=g)
    return _split(x, y[:, None])


@cache
def histories() -> Split:
    """Client, film and eight films that the client saw, [N, 10], and a standardised rating, [N, 1]."""
    g = _drawn(11)
    client, film = _ids(g, 7000, (CLIENTS, FILMS)).unbind(1)
    taste, kind = torch.randn(CLIENTS, 2, generator=g), torch.randn(FILMS, 2, generator=g)
    seen = torch.multinomial((1.5 * taste @ kind.T).exp()[client], SEEN, generator=g)
    good = 0.7 * torch.randn(FILMS, generator=g)
    y = (taste[client] * kind[film]).sum(1) + good[film] + 0.3 * torch.randn(7000, generator=g)
    return _split(torch.cat([client[:, None], film[:, None], seen], 1), _standard(y))
