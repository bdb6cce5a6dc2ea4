"""Models upon tables, for the embedding programs of the third generation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.third.embedding_data import (
    ARTICLES,
    BINS,
    BUCKETS,
    DISHES,
    FIELDS,
    GOODS,
    GUESTS,
    HINTS,
    KINDS,
    LANGUAGES,
    LEVELS,
    READERS,
    SHIFTS,
    SIDE,
    SIZES,
    TERMS,
    TOKENS,
    VOCABULARY,
    vectors,
)


class Fast(nn.Module):
    """FastText: the mean of the vectors of hashed trigrams, and a linear layer that starts at zero."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.grams, self.head = nn.EmbeddingBag(BUCKETS, width), nn.Linear(width, LANGUAGES)
        nn.init.uniform_(self.grams.weight, -1 / width, 1 / width)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.grams(x))
        return out


class Deep(nn.Module):
    """Vectors of reader and article, and their product, through two layers."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.readers, self.articles = nn.Embedding(READERS, width), nn.Embedding(ARTICLES, width)
        for table in (self.readers, self.articles):
            nn.init.normal_(table.weight, std=0.4)
        self.body = nn.Sequential(
            *(nn.Linear(3 * width, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.readers(x[:, 0]), self.articles(x[:, 1])
        logit = self.body(torch.cat([a, b, a * b], 1))
        return torch.cat([torch.zeros_like(logit), logit], 1)


class Translating(nn.Module):
    """TransE: a thing and a relation add up to another thing, told by the distance to all."""

    def __init__(self, width: int = 20) -> None:
        super().__init__()
        self.things, self.relations = nn.Embedding(SIDE**2, width), nn.Embedding(len(SHIFTS), width)
        for table in (self.things, self.relations):
            nn.init.uniform_(table.weight, -6 / width, 6 / width)
        self.sharpness = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        to = self.things(x[:, 0]) + self.relations(x[:, 1])
        far = to.square().sum(1, keepdim=True) - 2 * to @ self.things.weight.T + self.things.weight.square().sum(1)
        out: Tensor = -self.sharpness.exp() * far
        return out


class Binned(nn.Module):
    """The sum of vectors of binned features, normed, and a residual block."""

    def __init__(self, width: int = 28) -> None:
        super().__init__()
        self.bins = nn.EmbeddingBag(30 * BINS, width, mode="sum")
        nn.init.normal_(self.bins.weight, std=0.1)
        self.norm, self.end = nn.LayerNorm(width), nn.LayerNorm(width)
        self.block = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        state = self.bins(x)
        out: Tensor = self.head(self.end(state + self.block(self.norm(state))))
        return out


class Levels(nn.Module):
    """Vectors of pixels' grey levels, taken together, through two layers of tanh units."""

    def __init__(self, width: int = 64, *, mode: str = "mean") -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(64 * LEVELS, width, mode=mode)
        self.body = nn.Sequential(nn.Linear(width, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 10))
        for layer in (self.body[0], self.body[2]):
            nn.init.xavier_normal_(layer.get_parameter("weight"), gain=nn.init.calculate_gain("tanh"))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.table(x))
        return out


class Adaptive(nn.Module):
    """The next word by an adaptive softmax: rare words share narrow layers. Gives what that layer takes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, width)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(2 * width, 48), nn.SiLU(), nn.Linear(48, width))
        self.end = nn.AdaptiveLogSoftmaxWithLoss(width, VOCABULARY, cutoffs=[20, 80], div_value=2.0)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.table(x))
        return out


class Search(nn.Module):
    """A search and what may be bought, both of norm 1. Gives the former; the scale is learnt."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.words, self.goods = nn.EmbeddingBag(TOKENS, width), nn.Embedding(GOODS, width)
        self.body = nn.Linear(width, width)
        self.scale = nn.Parameter(torch.tensor(math.log(1 / 0.1)))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = F.normalize(self.body(self.words(x)), dim=1)
        return out

    def logits(self, search: Tensor, goods: Tensor) -> Tensor:
        """Compare searches with goods."""
        return self.scale.exp() * search @ F.normalize(self.goods(goods), dim=1).T


class Adapted(nn.Module):
    """Frozen vectors and a change of low rank, whose second part starts at zero; the mean of those of the words.

    Args:
        rank: of the change.
        least: how many words an empty note counts.
    """

    def __init__(self, rank: int = 6, *, least: int = 1) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(vectors(), padding_idx=0)
        self.down = nn.Embedding(TERMS, rank, padding_idx=0)
        self.up = nn.Linear(rank, HINTS, bias=False)
        nn.init.zeros_(self.up.weight)
        self.head = nn.Sequential(nn.Linear(HINTS, 32), nn.Mish(), nn.Linear(32, FIELDS))
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        words = self.table(x) + self.up(self.down(x))
        out: Tensor = self.head(words.sum(1) / (x > 0).sum(1, keepdim=True).clamp(min=self.least))
        return out


class Memory(nn.Module):
    """Words ask a memory, whose slots answer by their likeness.

    Args:
        slots: how many.
        std: of keys and values.
        picks: whether the best slot answers alone.
    """

    def __init__(self, slots: int = 20, *, std: float = 0.5, picks: bool = False, width: int = 24) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(200, width)
        self.keys, self.values = (nn.Parameter(std * torch.randn(slots, width)) for _ in range(2))
        self.head, self.picks = nn.Linear(width, 4), picks

    def forward(self, x: Tensor) -> Tensor:
        share = (self.table(x) @ self.keys.T).softmax(1)
        if self.picks:
            share = F.one_hot(share.argmax(1), len(self.keys)).float()
        out: Tensor = self.head(share @ self.values)
        return out


class Biased(nn.Module):
    """A mean, a number for each guest and dish, and the product of their vectors."""

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(1))
        self.kind, self.good = nn.Embedding(GUESTS, 1), nn.Embedding(DISHES, 1)
        self.guests, self.dishes = nn.Embedding(GUESTS, rank), nn.Embedding(DISHES, rank)
        for table in (self.kind, self.good, self.guests, self.dishes):
            nn.init.normal_(table.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        guest, dish = x.unbind(1)
        taste = (self.guests(guest) * self.dishes(dish)).sum(1, keepdim=True)
        out: Tensor = self.mean + self.kind(guest) + self.good(dish) + taste
        return out


class Composed(nn.Module):
    """The vector of an article's number is that of its quotient times that of its remainder; ``std`` is of both."""

    def __init__(self, width: int = 16, *, std: float = 0.8) -> None:
        super().__init__()
        self.quotients, self.remainders = nn.Embedding(KINDS, width), nn.Embedding(SIZES, width)
        for table in (self.quotients, self.remainders):
            nn.init.normal_(table.weight, std=std)
        self.body = nn.Sequential(nn.Linear(width, 24), nn.SiLU(), nn.Linear(24, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(self.quotients(x[:, 0]) * self.remainders(x[:, 1]))
        return out
