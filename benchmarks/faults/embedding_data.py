"""Words, users and items of the embedding programs, drawn here. The same at every call.

Shape legend: N = examples.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

WORDS, TOPICS, LENGTH = 300, 5, 12


def _split(x: Tensor, y: Tensor) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, test = order.tensor_split([len(x) * 3 // 4])
    return Split(x[train], y[train], x[test], y[test])


def _drawn() -> Generator:
    return torch.Generator().manual_seed(3)


@cache
def texts(shortest: int = LENGTH) -> Split:
    """Texts of words by Zipf's law, [N, 12], and the topic of each; word 0 fills up what is shorter."""
    g = _drawn()
    often = 1 / torch.arange(2, WORDS + 1) * (1.2 * torch.randn(TOPICS, WORDS - 1, generator=g)).exp()
    y = torch.randint(TOPICS, (3000,), generator=g)
    x = 1 + torch.multinomial(often[y], LENGTH, replacement=True, generator=g)
    kept = torch.arange(LENGTH) < torch.randint(shortest, LENGTH + 1, (3000, 1), generator=g)
    return _split(x * kept, y)


@cache
def ratings(users: int = 80, items: int = 50, rank: int = 3) -> Split:
    """Pairs of user and item, [N, 2], and what the one gives the other, [N, 1]: a matrix of low rank."""
    g = _drawn()
    matrix = torch.randn(users, rank, generator=g) @ torch.randn(rank, items, generator=g) / rank**0.5
    x = torch.cartesian_prod(torch.arange(users), torch.arange(items))
    return _split(x, matrix.flatten()[:, None] + 0.1 * torch.randn(len(x), 1, generator=g))


@cache
def pairs(words: int = 100, themes: int = 5) -> Split:
    """Pairs of words, [N, 2], and whether they stood together: most that did are of one theme, the others are drawn."""
    g = _drawn()
    theme = torch.arange(words) % themes
    y = torch.randint(2, (6000,), generator=g)
    x = torch.randint(words, (6000, 2), generator=g)
    near = (theme[x[:, 0]] + themes * torch.randint(words // themes, (6000,), generator=g)) % words
    return _split(torch.stack([x[:, 0], torch.where(y == 1, near, x[:, 1])], 1), y)


@cache
def following(words: int = 40) -> Split:
    """Two words, [N, 2], and the one that follows them, by the second of them."""
    g = _drawn()
    chances = (5 * torch.randn(words, words, generator=g)).softmax(1)
    x = torch.randint(words, (6000, 2), generator=g)
    return _split(x, torch.multinomial(chances[x[:, 1]], 1, generator=g)[:, 0])
