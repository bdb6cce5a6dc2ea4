"""Models upon tables, for the embedding programs of the fifth generation.

Shape legend: N = examples, W = width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.fifth import embedding_data as data
from benchmarks.faults.fourth.dense_models import Block
from benchmarks.faults.fourth.embedding_models import logits, looked_up, tables


class Recipe(nn.Module):
    """A linear model of ingredients; ``padded`` keeps the row of empty places at zero."""

    def __init__(self, *, padded: bool = True) -> None:
        super().__init__()
        self.table = nn.Embedding(data.INGREDIENTS + 1, 1, padding_idx=0 if padded else None)
        nn.init.zeros_(self.table.weight)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """Give calories."""
        out: Tensor = self.table(x).sum(1) + self.bias
        return out


class Pair(nn.Module):
    """Queries and products as directions, and a scale of their products, which is kept as a logarithm.

    Args:
        scale: that the logarithm begins with.
        width: of the directions.
    """

    def __init__(self, scale: float, width: int = 24) -> None:
        super().__init__()
        self.terms, self.traits = nn.EmbeddingBag(data.TERMS, width), nn.EmbeddingBag(data.TRAITS, width)
        self.query, self.product = (
            nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, width)) for _ in range(2)
        )
        self.scale = nn.Parameter(torch.tensor(scale))

    def directions(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give those of queries and of products."""
        query, product = self.query(self.terms(x[:, :5])), self.product(self.traits(x[:, 5:]))
        return F.normalize(query, dim=1), F.normalize(product, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of all products for each query, [N, N]."""
        query, product = self.directions(x)
        return self.scale.exp() * query @ product.T


class Stays(nn.Module):
    """Many blocks upon vectors of fields; ``every`` gives a block the sum of all that came before it."""

    def __init__(self, width: int = 8, depth: int = 10, *, every: bool = False) -> None:
        super().__init__()
        self.tables, self.every = tables(data.HOSPITAL, width, 0.5), every
        self.blocks = nn.ModuleList(Block(4 * width) for _ in range(depth))
        self.head = nn.Linear(4 * width, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        found = [torch.cat(looked_up(self.tables, x), 1)]
        for block in self.blocks:
            found.append(block(torch.stack(found).sum(0) if self.every else found[-1]))
        out: Tensor = self.head(found[-1])
        return out


class Neural(nn.Module):
    """A product of vectors, and a network of others, side by side: He et al., 2017."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        sizes = (data.GUESTS, data.HOTELS)
        self.product, self.beside = tables(sizes, width, 0.1), tables(sizes, width, 0.1)
        self.body = nn.Sequential(nn.Linear(2 * width, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU())
        self.head = nn.Linear(width + 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        a, b = looked_up(self.product, x)
        deep = self.body(torch.cat(looked_up(self.beside, x), 1))
        return logits(self.head(torch.cat([a * b, deep], 1))[:, 0])


class Menu(nn.Module):
    """Tables laid below each other and looked up at once; ``copied`` does so when it is built, for good."""

    def __init__(self, width: int = 4, *, copied: bool = False) -> None:
        super().__init__()
        self.tables, self.copied = tables(data.MENU, width, 0.5), copied
        self.register_buffer("offsets", torch.tensor([0, data.MENU[0], data.MENU[0] + data.MENU[1]]))
        self.register_buffer("copy", self.whole().detach().clone())
        self.body = nn.Sequential(nn.Linear(3 * width, 48), nn.GELU(), nn.Linear(48, 1))

    def whole(self) -> Tensor:
        """Give all rows."""
        return torch.cat([table.get_parameter("weight") for table in self.tables])

    def forward(self, x: Tensor) -> Tensor:
        """Give tips."""
        rows = F.embedding(x + self.get_buffer("offsets"), self.get_buffer("copy") if self.copied else self.whole())
        out: Tensor = self.body(rows.flatten(1))
        return out


class Orders(nn.Module):
    """Vectors of customer and goods beside numbers, through tanh units."""

    def __init__(self, numbers: int = 1, width: int = 8) -> None:
        super().__init__()
        self.tables = tables((data.CUSTOMERS, data.GOODS), width, 0.3)
        self.body = nn.Sequential(
            *(nn.Linear(2 * width + numbers, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 2)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        out: Tensor = self.body(torch.cat([*looked_up(self.tables, x), x[:, 2:]], 1))
        return out


class Glove(nn.Module):
    """Products of the vectors of words and of their neighbours: Pennington et al., 2014."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.vectors, self.biases = (
            tables((data.WORDS, data.WORDS), width, 0.3),
            tables((data.WORDS, data.WORDS), 1, 0.01),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give logarithms."""
        a, b = looked_up(self.vectors, x)
        return (a * b).sum(1, keepdim=True) + sum(looked_up(self.biases, x))


class WideDeep(nn.Module):
    """A number for each value, and a network of its vectors: Cheng et al., 2016."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.wide, self.deep = tables(data.BOOKINGS, 1, 0.01), tables(data.BOOKINGS, width, 0.3)
        self.body = nn.Sequential(
            *(nn.Linear(4 * width, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        deep = self.body(torch.cat(looked_up(self.deep, x), 1))
        return logits((sum(looked_up(self.wide, x)) + deep)[:, 0])


class Crosses(nn.Module):
    """Two crossing layers beside a network: Wang et al., 2021."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.tables = tables(data.ADS, width, 0.3)
        self.crosses = nn.ModuleList(nn.Linear(4 * width, 4 * width) for _ in range(2))
        self.body = nn.Sequential(nn.Linear(4 * width, 48), nn.ReLU(), nn.Dropout(0.05))
        self.head = nn.Linear(4 * width + 48, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        first = h = torch.cat(looked_up(self.tables, x), 1)
        for cross in self.crosses:
            h = first * cross(h) + h
        out: Tensor = self.head(torch.cat([h, self.body(first)], 1))
        return out
