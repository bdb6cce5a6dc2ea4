"""Sequences and networks of the third recurrent programs. The sequences are the same at every call.

Shape legend: N = examples, T = time, F = features, V = symbols.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor, nn

from benchmarks.faults.data import Split, changed, digits, wine
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop

EXAMPLES = 2400
SPELLED = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def _standard(y: Tensor) -> Tensor:
    return ((y - y.mean()) / y.std())[:, None]


@cache
def titles(length: int, words: int = 25) -> Split:
    """Texts [N, T], in the first three words of which stands one of four verdicts."""
    g = _drawn(31)
    x = torch.randint(4, words, (EXAMPLES, length), generator=g)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    x[torch.arange(EXAMPLES), torch.randint(3, (EXAMPLES,), generator=g)] = y
    return _split(x, y)


@cache
def strokes(fine: int) -> Split:
    """Twelve moments of a pen's speed, each measured so many times [N, T, 2]: the quadrant that it sets off to."""
    g = _drawn(32)
    x = 0.4 * torch.randn(EXAMPLES, 12, 2, generator=g)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    x[:, :2] += 1.2 * torch.stack([y % 2 * 2 - 1, y // 2 * 2 - 1], 1)[:, None]
    x = x.repeat_interleave(fine, 1)
    return _split(x + 0.1 * torch.randn(x.shape, generator=g), y)


@cache
def endings(length: int) -> Split:
    """Words [N, T] of five languages, each with five endings of three letters; a few have an ending by chance."""
    g = _drawn(33)
    typical = torch.randint(16, (5, 5, 3), generator=g)
    x = torch.randint(16, (EXAMPLES, length), generator=g)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    usual = torch.rand(EXAMPLES, generator=g) < 0.95
    ending = typical[y, torch.randint(5, (EXAMPLES,), generator=g)]
    x[usual, -3:] = ending[usual]
    return _split(x, y)


@cache
def balances(length: int) -> Split:
    """Amounts and whether they are paid in (1) or out (-1) [N, T, 2]: what is left."""
    g = _drawn(34)
    amount = torch.rand(EXAMPLES, length, generator=g)
    sign = torch.randint(2, (EXAMPLES, length), generator=g) * 2.0 - 1
    return _split(torch.stack([amount, sign], 2), _standard((amount * sign).sum(1)))


@cache
def doses(length: int, kept: float = 0.93) -> Split:
    """Now and then a dose [N, T, 1]: how much of all is left, as a share is lost at each step."""
    g = _drawn(35)
    x = torch.rand(EXAMPLES, length, generator=g) * (torch.rand(EXAMPLES, length, generator=g) < 0.3)
    left = x @ kept ** torch.arange(length - 1.0, -1.0, -1.0)
    return _split(x[..., None], _standard(left))


@cache
def gains(length: int) -> Split:
    """Numbers, of which the first and the last are marked [N, T, 2]: the first less half of the last."""
    g = _drawn(36)
    x = torch.randn(EXAMPLES, length, 2, generator=g)
    x[..., 1] = 0
    x[:, [0, -1], 1] = 1
    return _split(x, _standard(x[:, 0, 0] - 0.5 * x[:, -1, 0]))


@cache
def brackets(length: int) -> Split:
    """Brackets among letters [N, T], and how many are open at each step, up to four [N, T]."""
    g = _drawn(37)
    x, y = torch.randint(7, (EXAMPLES, length), generator=g), torch.zeros(EXAMPLES, length, dtype=torch.long)
    depth = torch.zeros(EXAMPLES, dtype=torch.long)
    for t in range(length):
        x[:, t] = torch.where((x[:, t] < 3) & (depth == 0), 0, x[:, t])
        x[:, t] = torch.where((x[:, t] < 3) & (depth == 4), 1, x[:, t])
        x[:, t] = torch.where(x[:, t] == 2, torch.randint(2, (EXAMPLES,), generator=g) if t > 0 else 0, x[:, t])
        x[:, t] = torch.where((x[:, t] == 1) & (depth == 0), 0, x[:, t])
        x[:, t] = torch.where((x[:, t] == 0) & (depth == 4), 1, x[:, t])
        depth = depth + (x[:, t] == 0).long() - (x[:, t] == 1).long()
        y[:, t] = depth
    return _split(x, y)


@cache
def captions() -> Split:
    """Digits and the letters before each letter [N, 64 + T = 5]; how the digit is spelled [N, T]."""
    images = digits()
    alphabet = sorted({*"".join(SPELLED), " "})
    spelled = torch.tensor([[alphabet.index(letter) for letter in word.ljust(5)] for word in SPELLED])
    y, y_test = spelled[images.y], spelled[images.y_test]

    def told(x: Tensor, y: Tensor) -> Tensor:
        return torch.cat([x, y.roll(1, 1).index_fill(1, torch.tensor([0]), 0).float()], 1)

    return Split(told(images.x, y), y, told(images.x_test, y_test), y_test)


@cache
def columns() -> Split:
    """Wines, column after column, each with its number one-hot [N, T = 13, 14]; 133 to learn from."""
    return changed(wine(), lambda x: torch.cat([x[..., None], torch.eye(13).expand(len(x), -1, -1)], 2))


@cache
def beats(length: int) -> Split:
    """Waves of four forms, of any size and level [N, T, 1]."""
    g = _drawn(38)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    at = torch.arange(length) / 10 + torch.rand(EXAMPLES, 1, generator=g)
    saw = 2 * (at % 1) - 1
    sine = (2 * math.pi * at).sin()
    forms = torch.stack([sine, sine.sign(), saw, 2 * (sine > 0.8).float() - 0.5], 0)
    x = forms[y, torch.arange(EXAMPLES)] + 0.3 * torch.randn(EXAMPLES, length, generator=g)
    size, level = (4 * torch.rand(EXAMPLES, 1, generator=g) - 1).exp(), 5 * torch.randn(EXAMPLES, 1, generator=g)
    return _split((size * x + level)[..., None], y)


@cache
def walks(length: int) -> Split:
    """Steps of random walks [N, T, 1] that drift up or down and are calm or wild."""
    g = _drawn(39)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    drift, wild = (y % 2 * 2 - 1)[:, None], (y // 2)[:, None]
    x = 0.3 * drift + (0.5 + 0.7 * wild) * torch.randn(EXAMPLES, length, generator=g)
    return _split(x[..., None], y)


class Ends(nn.Module):
    """Both directions of an LSTM; what each gives where it ends, [N, 1, 2 * half]."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.layer = nn.LSTM(inputs, width // 2, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (torch.cat(list(self.layer(x)[1][0]), 1)[:, None],)


class Cells(nn.Module):
    """A GRU's cell in a loop of one's own, with a norm on what it gives."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.cell, self.norm, self.width = nn.GRUCell(inputs, width), nn.LayerNorm(width), width

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.cell(now, h)
        return (self.norm(h)[:, None],)


class Stack(nn.Module):
    """An embedding times a factor, and a GRU of two layers."""

    def __init__(self, words: int, width: int, factor: float) -> None:
        super().__init__()
        self.words, self.factor = nn.Embedding(words, width), factor
        self.layer = nn.GRU(width, width, 2, batch_first=True)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.layer(self.factor * self.words(x))[0],)


class Standardised(nn.Module):
    """Take the mean of each window away, and divide by its spread, which is first put within bounds."""

    def __init__(self, **bounds: float) -> None:
        super().__init__()
        self.bounds = bounds

    def forward(self, x: Tensor) -> Tensor:
        spread = x.std(1, keepdim=True)
        return (x - x.mean(1, keepdim=True)) / (spread.clamp(**self.bounds) if self.bounds else spread)


class Speller(nn.Module):
    """An LSTM that starts from what an image tells, and foretells each letter from those before it."""

    def __init__(self, letters: int, width: int) -> None:
        super().__init__()
        self.image, self.letters = nn.Linear(64, 2 * width), nn.Embedding(letters, width)
        self.layer, self.head = nn.LSTM(width, width, batch_first=True), nn.Linear(width, letters)

    def forward(self, x: Tensor) -> Tensor:
        start = tuple(part[None].contiguous() for part in self.image(x[:, :64]).tanh().chunk(2, 1))
        return self.head(self.layer(self.letters(x[:, 64:].long()), start)[0]).transpose(1, 2)


def spell(lr: float, *, fill: Callable[[nn.Module], Any] | None = None, **loop: Any) -> Loop:
    """Build a speller of digits and its loop."""
    split = captions()
    net = Speller(int(split.y.max()) + 1, 28)
    if fill:
        fill(net)
    return supervised(net, split, lr, **{"batch": 48, **loop})
