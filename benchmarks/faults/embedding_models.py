"""Models whose first layer is a table."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks.faults.embedding_data import LENGTH, TOPICS, WORDS


class Bag(nn.Module):
    """The mean of the words' vectors, a hidden layer, and classes.

    Args:
        hidden: width of both.
        sparse: whether the table's gradient is.
        detaches: whether no gradient gets to the table.
    """

    def __init__(self, *, hidden: int = 32, sparse: bool = False, detaches: bool = False) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(WORDS, hidden, sparse=sparse)
        self.body = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, TOPICS))
        self.detaches = detaches

    def forward(self, x: Tensor) -> Tensor:
        words = self.table(x)
        out: Tensor = self.body(words.detach() if self.detaches else words)
        return out


class Padded(nn.Module):
    """The largest values of the words' vectors, where a word that fills up is left out; by ``padding_idx``."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, hidden, padding_idx=0)
        self.head = nn.Linear(hidden, TOPICS)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.table(x).amax(1))
        return out


class Cosine(nn.Module):
    """Likeness of a text's words to a vector of each topic; ``eps`` keeps a norm from 0."""

    def __init__(self, *, eps: float = 1e-6, hidden: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, hidden, padding_idx=0)
        self.topics = nn.Parameter(torch.randn(TOPICS, hidden))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        words = self.table(x)
        unit = words / (words.square().sum(2, keepdim=True) + self.eps).sqrt()
        out: Tensor = 5 * (unit.sum(1) @ nn.functional.normalize(self.topics, dim=1).T) / LENGTH
        return out


class Factors(nn.Module):
    """A rating by the product of a user's and an item's vector. ``std`` is of both."""

    def __init__(self, *, rank: int = 6, std: float = 0.5) -> None:
        super().__init__()
        self.users, self.items = nn.Embedding(80, rank), nn.Embedding(50, rank)
        for table in (self.users, self.items):
            nn.init.normal_(table.weight, std=std)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = (self.users(x[:, 0]) * self.items(x[:, 1])).sum(1, keepdim=True)
        return out


class Towers(nn.Module):
    """Two towers upon tables; whether a pair belongs together by the product. ``detaches`` both from it."""

    def __init__(self, *, detaches: bool = False, hidden: int = 16) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(100, hidden) for _ in range(2))
        self.body = nn.ModuleList(
            nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)) for _ in range(2)
        )
        self.bias, self.detaches = nn.Parameter(torch.zeros(1)), detaches

    def forward(self, x: Tensor) -> Tensor:
        a, b = (body(table(x[:, i])) for i, (table, body) in enumerate(zip(self.tables, self.body, strict=True)))
        a, b = (a.detach(), b.detach()) if self.detaches else (a, b)
        logit = (a * b).sum(1) + self.bias
        return torch.stack([torch.zeros_like(logit), logit], 1)


class Tied(nn.Module):
    """The next word by two words' vectors; the softmax's weights are the table."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(40, hidden)
        nn.init.normal_(self.table.weight, std=hidden**-0.5)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(2 * hidden, 48), nn.Tanh(), nn.Linear(48, hidden))
        self.head = nn.Linear(hidden, 40)
        self.head.weight = self.table.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.table(x)))
        return out
