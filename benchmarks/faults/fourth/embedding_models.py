"""Models upon tables, for the embedding programs of the fourth generation.

Shape legend: N = examples, W = width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.fourth.embedding_data import (
    AIRLINES,
    BITS,
    BOOKS,
    BUCKETS,
    CLIENTS,
    DEALS,
    FIELDS,
    FILMS,
    NODES,
    PAGES,
    PEOPLE,
    PORTS,
    READERS,
    SONGS,
    STORES,
    TERMS,
    VISITORS,
    WORDS,
)


def logits(logit: Tensor) -> Tensor:
    """Give logits of two classes from one."""
    return torch.stack([torch.zeros_like(logit), logit], 1)


def tables(sizes: Sequence[int], width: int, std: float) -> nn.ModuleList:
    """Draw a table for each field."""
    tables = nn.ModuleList(nn.Embedding(n, width) for n in sizes)
    for table in tables:
        nn.init.normal_(table.get_parameter("weight"), std=std)
    return tables


def looked_up(tables: nn.ModuleList, x: Tensor) -> list[Tensor]:
    """Look up what each column names."""
    return [table(x[:, i].long()) for i, table in enumerate(tables)]


class Playlist(nn.Module):
    """The next song, by the vectors of the last ones; the table is the softmax's matrix, too."""

    def __init__(self, width: int = 64, power: float = -0.5) -> None:
        super().__init__()
        self.table = nn.Embedding(SONGS, width)
        nn.init.normal_(self.table.weight, std=width**power)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(3 * width, 64), nn.GELU(), nn.Linear(64, width))
        self.bias = nn.Parameter(torch.zeros(SONGS))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of all songs."""
        out: Tensor = nn.functional.linear(self.body(self.table(x)), self.table.weight, self.bias)
        return out


class Entities(nn.Module):
    """Vectors of categories, side by side, through two layers: Guo and Berkhahn, 2016."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.tables = tables(STORES, width, 0.3)
        self.body = nn.Sequential(
            *(nn.Linear(3 * width, 48), nn.ReLU(), nn.Dropout(0.05)),
            *(nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give sales."""
        out: Tensor = self.body(torch.cat(looked_up(self.tables, x), 1))
        return out


class Friends(nn.Module):
    """Whether two people know each other: vectors through a shared layer, how often each of them is asked about."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.people, self.known = nn.Embedding(PEOPLE, width), nn.Embedding(PEOPLE, 1)
        nn.init.normal_(self.people.weight, std=0.5)
        nn.init.zeros_(self.known.weight)
        self.body = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        a, b = self.people(x).unbind(1)
        return logits((self.body(torch.cat([a * b, (a - b).abs()], 1)) + self.known(x).sum(1))[:, 0])


class Opinion(nn.Module):
    """The mean of the vectors of words and pairs, dropout, a hidden layer."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(WORDS + BUCKETS, width)
        self.body = nn.Sequential(nn.Dropout(0.2), nn.Linear(width, 32), nn.LayerNorm(32), nn.GELU(), nn.Linear(32, 2))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(self.table(x))
        return out


class Codes(nn.Module):
    """Reader and book as bits, and how many of them agree; the signs ``pass`` gradients on or not."""

    def __init__(self, width: int = 24, *, passes: bool = True) -> None:
        super().__init__()
        self.tables = tables((READERS, BOOKS), width, 0.5)
        self.heads = nn.ModuleList(nn.Linear(width, BITS) for _ in range(2))
        self.scale, self.passes = nn.Parameter(torch.tensor(0.5)), passes

    def bits(self, x: Tensor) -> Tensor:
        """Give -1 or 1."""
        return x.tanh() + (x.sign() - x.tanh()).detach() if self.passes else x.sign()

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        a, b = (self.bits(head(h)) for head, h in zip(self.heads, looked_up(self.tables, x), strict=True))
        return logits(self.scale * (a * b).sum(1))


class Tree(nn.Module):
    """Nodes upon a hyperboloid: Nickel and Kiela, 2018. ``least`` is what keeps arccosh() away from 1."""

    def __init__(self, width: int = 8, *, least: float = 1e-5) -> None:
        super().__init__()
        self.nodes, self.least = nn.Embedding(NODES, width), least
        nn.init.normal_(self.nodes.weight, std=0.1)
        self.radius, self.sharpness = nn.Parameter(torch.tensor(1.0)), nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        a, b = self.nodes(x).unbind(1)
        time = ((1 + a.square().sum(1)) * (1 + b.square().sum(1))).sqrt()
        far = (time - (a * b).sum(1)).clamp(min=1 + self.least).arccosh()
        return logits(self.sharpness * (self.radius - far))


class Prototypes(nn.Module):
    """Papers by how near they are to some prototypes, if at all: what lies beyond a margin counts nothing."""

    def __init__(self, width: int = 16, many: int = 48, *, margin: float = 1.0) -> None:
        super().__init__()
        self.table, self.own = nn.EmbeddingBag(TERMS, width), nn.Parameter(0.4 * torch.randn(many, width))
        self.act, self.head, self.margin = nn.ReLU(), nn.Linear(many, FIELDS), margin

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        far = (self.table(x)[:, None] - self.own).square().mean(2)
        out: Tensor = self.head(self.act(self.margin - far))
        return out


class Visits(nn.Module):
    """Vectors of visitor and page beside a number, through layers of tanh units."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.tables = tables((VISITORS, PAGES), width, 0.5)
        self.body = nn.Sequential(
            *(nn.Linear(2 * width + 1, 48), nn.Tanh(), nn.Linear(48, 24), nn.Tanh(), nn.Linear(24, 2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(torch.cat([*looked_up(self.tables, x), x[:, 2:]], 1))
        return out


class Crossing(nn.Module):
    """Deep crossing, Shan et al., 2016: vectors of fields through blocks with, or without, a path around each."""

    def __init__(
        self, width: int = 8, depth: int = 8, *, around: bool = True, act: Callable[[], nn.Module] = nn.Sigmoid
    ) -> None:
        super().__init__()
        self.tables, self.around = tables(DEALS, width, 0.5), around
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4 * width, 4 * width), act()) for _ in range(depth))
        self.head = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        h = torch.cat(looked_up(self.tables, x), 1)
        for block in self.blocks:
            h = h + block(h) if self.around else block(h)
        out: Tensor = self.head(h)
        return out


class Fares(nn.Module):
    """A mean, numbers of airports and airline, and a product of the airports' vectors."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.mean, self.fees, self.airlines = (
            nn.Parameter(torch.zeros(1)),
            nn.Embedding(PORTS, 1),
            nn.Embedding(AIRLINES, 1),
        )
        self.start, self.end = tables((PORTS, PORTS), width, 0.3)
        for table in (self.fees, self.airlines):
            nn.init.zeros_(table.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Give fares."""
        way = (self.start(x[:, 0]) * self.end(x[:, 1])).sum(1, keepdim=True)
        out: Tensor = self.mean + self.fees(x[:, :2]).sum(1) + self.airlines(x[:, 2]) + way
        return out


class History(nn.Module):
    """SVD++, Koren, 2008: a client is a vector of its own and the mean of those of what it saw."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.clients, self.films = tables((CLIENTS, FILMS), width, 0.2)
        self.seen, self.biases = (
            nn.EmbeddingBag(FILMS, width),
            nn.ModuleList([nn.Embedding(CLIENTS, 1), nn.Embedding(FILMS, 1)]),
        )
        nn.init.normal_(self.seen.weight, std=0.2)
        for table in self.biases:
            nn.init.zeros_(table.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Give ratings."""
        client: Any = self.clients(x[:, 0]) + self.seen(x[:, 2:])
        bias = sum(table(x[:, i]) for i, table in enumerate(self.biases))
        out: Tensor = (client * self.films(x[:, 1])).sum(1, keepdim=True) + bias
        return out
