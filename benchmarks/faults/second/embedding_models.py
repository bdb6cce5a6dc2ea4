"""Models upon tables, for the embedding programs of the second generation."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.faults.second.embedding_data import DAYS, FIELDS, GOODS, ITEMS, SHOPS, VALENCED, valences


def _logits(a: Tensor, b: Tensor) -> Tensor:
    return torch.stack([a, b], 1)


class SkipGram(nn.Module):
    """Word2vec as it was published: one table near zero, and one of zeros."""

    def __init__(self, words: int = 160, width: int = 24) -> None:
        super().__init__()
        self.words, self.contexts = nn.Embedding(words, width), nn.Embedding(words, width)
        self.bias = nn.Parameter(torch.zeros(1))
        nn.init.uniform_(self.words.weight, -0.5 / width, 0.5 / width)
        nn.init.zeros_(self.contexts.weight)

    def forward(self, x: Tensor) -> Tensor:
        logit = (self.words(x[:, 0]) * self.contexts(x[:, 1])).sum(1) + self.bias
        return _logits(torch.zeros_like(logit), logit)


class Sales(nn.Module):
    """Vectors of categories beside numbers, with batch norm and dropout; what comes out is positive."""

    def __init__(self, width: int = 64, drop: float = 0.1) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, min(10, n // 2)) for n in (SHOPS, GOODS, DAYS))
        self.norm = nn.BatchNorm1d(2)
        inputs = sum(table.embedding_dim for table in self.tables if isinstance(table, nn.Embedding)) + 2
        self.body = nn.Sequential(
            *(nn.Linear(inputs, width), nn.ReLU(), nn.BatchNorm1d(width), nn.Dropout(drop)),
            *(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1), nn.Softplus()),
        )

    def forward(self, x: Tensor) -> Tensor:
        vectors = [table(x[:, i].long()) for i, table in enumerate(self.tables)]
        out: Tensor = self.body(torch.cat([*vectors, self.norm(x[:, 3:])], 1))
        return out


class Machine(nn.Module):
    """DeepFM: a weight of each value, the products of their vectors, and a network upon these."""

    def __init__(self, width: int = 14) -> None:
        super().__init__()
        self.vectors = nn.ModuleList(nn.Embedding(n, width) for n in FIELDS)
        self.weights = nn.ModuleList(nn.Embedding(n, 1) for n in FIELDS)
        for table in [*self.vectors, *self.weights]:
            nn.init.normal_(table.get_parameter("weight"), std=0.1)
        self.deep = nn.Sequential(nn.Linear(width * len(FIELDS), 48), nn.ReLU(), nn.Linear(48, 1))

    def forward(self, x: Tensor) -> Tensor:
        vectors = torch.stack([table(x[:, i]) for i, table in enumerate(self.vectors)], 1)
        once = sum(table(x[:, i])[:, 0] for i, table in enumerate(self.weights))
        twice = (vectors.sum(1).square() - vectors.square().sum(1)).sum(1) / 2
        logit = once + twice + self.deep(vectors.flatten(1))[:, 0]
        return _logits(torch.zeros_like(logit), logit)


class Placed(nn.Module):
    """Word and place of each word, summed, through tanh units; then their mean."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(48, width), nn.Embedding(14, width)
        self.body = nn.Sequential(nn.Linear(width, 40), nn.Tanh())
        self.head = nn.Linear(40, 4)

    def forward(self, x: Tensor) -> Tensor:
        words = self.words(x) + self.places.weight
        out: Tensor = self.head(self.body(words).mean(1))
        return out


class Metric(nn.Module):
    """Which of two items is nearer to a first one."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.items = nn.Embedding(120, width)
        self.body = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        anchor, a, b = self.body(self.items(x)).unbind(1)
        return -_logits((anchor - a).square().mean(1), (anchor - b).square().mean(1))


class Ranking(nn.Module):
    """What a user likes of two items: products and biases; a table's rows are looked up in ``.data`` or not."""

    def __init__(self, width: int = 8, *, data: bool = False) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(100, width), nn.Embedding(60, width)
        self.biases, self.data = nn.Embedding(60, 1), data
        for table in (self.users, self.items, self.biases):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, x: Tensor) -> Tensor:
        users, items = self.users(x[:, :1]), self.items(x[:, 1:])
        if self.data:
            users, items = self.users.weight.data[x[:, :1]], self.items.weight.data[x[:, 1:]]
        out: Tensor = (users * items).sum(2) + self.biases(x[:, 1:])[:, :, 0]
        return out


class Linear(nn.Module):
    """The words' votes for each topic, summed."""

    def __init__(self, words: int = 200, topics: int = 3) -> None:
        super().__init__()
        self.votes = nn.EmbeddingBag(words, topics, mode="sum")
        nn.init.normal_(self.votes.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.votes(x)
        return out


class Seasons(nn.Module):
    """Vectors of shop, goods and day beside two numbers, through tanh units."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, width) for n in (SHOPS, GOODS, DAYS))
        self.body = nn.Sequential(
            *(nn.Linear(3 * width + 2, 56), nn.Tanh(), nn.Linear(56, 28), nn.Tanh(), nn.Linear(28, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        vectors = [table(x[:, i].long()) for i, table in enumerate(self.tables)]
        out: Tensor = self.body(torch.cat([*vectors, x[:, 3:]], 1))
        return out


class Review(nn.Module):
    """The mean of the words' vectors, which may have been learnt before, and two layers."""

    def __init__(self, width: int = 20, *, learnt: float = 0.0) -> None:
        super().__init__()
        self.table = nn.Embedding(VALENCED, width)
        with torch.no_grad():
            self.table.weight[:, 0] += learnt * valences()
        self.body = nn.Sequential(nn.Linear(width, 24), nn.ReLU(), nn.Linear(24, 2))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.table(x).mean(1))
        return out


class Language(nn.Module):
    """The next word: layer norm, two residual blocks and a softmax that shares the table."""

    def __init__(self, width: int = 40, words: int = 36) -> None:
        super().__init__()
        self.table = nn.Embedding(words, width)
        nn.init.normal_(self.table.weight, std=0.1)
        self.join = nn.Linear(3 * width, width)
        block = partial(self._block, width)
        self.blocks = nn.ModuleList([block(), block()])
        self.norm, self.bias = nn.LayerNorm(width), nn.Parameter(torch.zeros(words))

    @staticmethod
    def _block(width: int) -> nn.Sequential:
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        state = self.join(self.table(x).flatten(1))
        for block in self.blocks:
            state = state + block(state)
        out: Tensor = nn.functional.linear(self.norm(state), self.table.weight, self.bias)
        return out


class Session(nn.Module):
    """The largest values of the items' vectors, by an ``EmbeddingBag``, and a hidden layer."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.bag = nn.EmbeddingBag(ITEMS, width, mode="max")
        self.body = nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, 4))
        nn.init.normal_(self.bag.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.bag(x))
        return out
