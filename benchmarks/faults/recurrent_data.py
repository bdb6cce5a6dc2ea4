"""Sequences of the recurrent programs, drawn here. The same at every call.

Shape legend: N = examples, T = time, F = features, V = symbols.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from benchmarks.faults.data import Split

EXAMPLES = 4000
SYMBOLS = 6  # of the chain


def _drawn() -> Generator:
    return torch.Generator().manual_seed(2)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def recall(length: int, symbols: int = 4) -> Split:
    """The first of T symbols, one-hot [N, T, 2 V], is asked for at the end; those after it are of another alphabet."""
    g = _drawn()
    tokens = torch.randint(symbols, (EXAMPLES, length), generator=g)
    tokens[:, 1:] += symbols
    return _split(one_hot(tokens, 2 * symbols).float(), tokens[:, 0])


@cache
def adding(length: int) -> Split:
    """Numbers and marks, [N, T, 2]: the sum of the two marked numbers, one in each half, standardised [N, 1]."""
    g = _drawn()
    x = torch.zeros(EXAMPLES, length, 2)
    x[:, :, 0] = torch.rand(EXAMPLES, length, generator=g)
    for start in (0, length // 2):
        at = start + torch.randint(length // 2, (EXAMPLES,), generator=g)
        x[torch.arange(EXAMPLES), at, 1] = 1
    y = (x[:, :, 0] * x[:, :, 1]).sum(1, keepdim=True)
    return _split(x, (y - y.mean()) / y.std())


@cache
def votes(length: int = 15, parties: int = 3) -> Split:
    """Which of V symbols, one-hot [N, T, V], comes most often; the last of them where several do."""
    tokens = torch.randint(parties, (EXAMPLES, length), generator=_drawn())
    x = one_hot(tokens, parties).float()
    return _split(x, (x.sum(1) + 0.01 * torch.arange(parties)).argmax(1))


@cache
def lately(length: int, last: int = 5) -> Split:
    """The sum of the last five of T numbers, [N, T, 1], standardised [N, 1]; what is before does not matter."""
    x = torch.randn(EXAMPLES, length, 1, generator=_drawn())
    return _split(x, x[:, -last:, 0].sum(1, keepdim=True) / last**0.5)


@cache
def tags(length: int = 12, symbols: int = 5) -> Split:
    """For each step of [N, T] symbols, one of three tags, by the symbols before, there and after."""
    tokens = torch.randint(symbols, (EXAMPLES, length), generator=_drawn())
    return _split(tokens, (2 * tokens.roll(1, 1) + tokens + tokens.roll(-1, 1) * (tokens % 2)) % 3)


@cache
def padded(longest: int = 40, shortest: int = 8, symbols: int = 4) -> Split:
    """As :func:`recall`, of unequal lengths; zeros follow the end."""
    split = recall(longest, symbols)
    g = _drawn()
    lengths = torch.randint(shortest, longest + 1, (EXAMPLES, 1), generator=g)
    kept = (torch.arange(longest) < lengths).float()[..., None]
    cut = len(split.x)
    return split._replace(x=split.x * kept[:cut], x_test=split.x_test * kept[cut:])


def _chances() -> Tensor:
    """How likely each symbol is after each two [V, V, V]."""
    return (2 * torch.randn(SYMBOLS, SYMBOLS, SYMBOLS, generator=_drawn())).softmax(-1)


@cache
def chain(length: int = 24) -> Split:
    """Text of a Markov chain of second order, [N, T], and what comes next at each step [N, T]."""
    g, chances = _drawn(), _chances()
    text = torch.randint(SYMBOLS, (EXAMPLES, length + 11), generator=g)
    for t in range(2, length + 11):
        text[:, t] = torch.multinomial(chances[text[:, t - 2], text[:, t - 1]], 1, generator=g)[:, 0]
    text = text[:, 10:]
    return _split(text[:, :-1], text[:, 1:])


@cache
def chain_losses(length: int = 24) -> tuple[float, float]:
    """Cross entropies on the test text from its second step: by how often each symbol comes, and by the chain."""
    _, _, x, y = chain(length)
    often = torch.bincount(y.flatten()).float() / y.numel()
    known = _chances()[x[:, :-1], x[:, 1:]].gather(-1, y[:, 1:, None])
    return float(-often[y[:, 1:]].log().mean()), float(-known.log().mean())
