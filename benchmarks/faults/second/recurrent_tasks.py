"""Sequences of the newer recurrent programs, drawn here. The same at every call.

Shape legend: N = examples, T = time, F = features, V = symbols.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor
from torch.nn.functional import one_hot

from benchmarks.faults.data import Split

EXAMPLES = 3200
LETTERS = 26
FIRST = 97  # number of the letter a
WORDS = ("at", "the", "tea", "hen", "heat", "neat", "ant", "eaten", "that", "nth")


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def order(length: int) -> Split:
    """Two symbols of A and B, one in each half of [N, T, V], among four others: which of the four pairs it was."""
    g = _drawn(11)
    tokens = torch.randint(2, 6, (EXAMPLES, length), generator=g)
    pair = torch.randint(2, (EXAMPLES, 2), generator=g)
    for half in (0, 1):
        at = half * (length // 2) + torch.randint(length // 2, (EXAMPLES,), generator=g)
        tokens[torch.arange(EXAMPLES), at] = pair[:, half]
    return _split(one_hot(tokens, 6).float(), 2 * pair[:, 0] + pair[:, 1])


@cache
def marked(length: int, symbols: int = 5) -> Split:
    """The one symbol of [N, T, V + 1] that bears a mark, which stands in the first fifth."""
    g = _drawn(12)
    tokens = torch.randint(symbols, (EXAMPLES, length), generator=g)
    at = torch.randint(max(length // 5, 1), (EXAMPLES,), generator=g)
    mark = one_hot(at, length).float()[..., None]
    return _split(torch.cat([one_hot(tokens, symbols).float(), mark], 2), tokens[torch.arange(EXAMPLES), at])


@cache
def prices(length: int, *, stamped: bool = False) -> Split:
    """A series that swings about a level and the time of day [N, T, 2], and what comes next [N, 1].

    The time is a share of the day, or the seconds since the first of them where ``stamped``.
    """
    g = _drawn(14)
    x = torch.zeros(EXAMPLES, length + 31)
    noise = torch.randn(EXAMPLES, length + 31, generator=g)
    for t in range(2, length + 31):
        x[:, t] = 1.5 * x[:, t - 1] - 0.8 * x[:, t - 2] + noise[:, t]
    x = x[:, 30:] / x.std()
    seconds = 60 * (torch.randint(100_000, (EXAMPLES, 1), generator=g) + torch.arange(length))
    time = seconds.float() if stamped else (seconds % 86_400).float() / 86_400
    return _split(torch.stack([x[:, :-1], time], 2), x[:, -1:])


@cache
def switches(length: int, chance: float = 0.08) -> Split:
    """Rare pulses of 1 and -1 on two wires [N, T, 2], and at each step the last pulse of each [N, 2, T]."""
    g = _drawn(15)
    x = torch.randint(2, (EXAMPLES, length, 2), generator=g).mul(2).sub(1).float()
    x[:, 1:] *= torch.rand(EXAMPLES, length - 1, 2, generator=g) < chance
    y = x.clone()
    for t in range(1, length):
        y[:, t] = torch.where(x[:, t] == 0, y[:, t - 1], x[:, t])
    return _split(x, y.transpose(1, 2).contiguous())


@cache
def names(length: int, *, ordinals: bool = False) -> Split:
    """Names of 5 to 10 letters in four languages, padded with 0: numbers of letters, [N, T].

    Where ``ordinals``, what ``ord()`` gives in place of them, [N, T, 1].
    """
    g = _drawn(16)
    chances = (2.0 * torch.randn(4, LETTERS, LETTERS, generator=g)).softmax(-1)
    language = torch.randint(4, (EXAMPLES,), generator=g)
    name = torch.randint(LETTERS, (EXAMPLES, 10), generator=g)
    for t in range(1, 10):
        name[:, t] = torch.multinomial(chances[language, name[:, t - 1]], 1, generator=g)[:, 0]
    kept = torch.arange(10) < torch.randint(5, 11, (EXAMPLES, 1), generator=g)
    tokens = torch.zeros(EXAMPLES, length, dtype=torch.long)
    tokens[:, :10] = (name + (FIRST if ordinals else 1)) * kept
    return _split(tokens.float()[..., None] if ordinals else tokens, language)


@cache
def mirrored(length: int = 5, symbols: int = 6) -> Split:
    """Symbols [N, T], and the same from the last to the first."""
    x = torch.randint(symbols, (EXAMPLES, length), generator=_drawn(17))
    return _split(x, x.flip(1))


@cache
def spotted(length: int, symbols: int = 20) -> Split:
    """Which of the first four symbols stands twice somewhere in a text of others [N, T] that 0 is the padding of."""
    g = _drawn(18)
    x = torch.randint(5, symbols, (EXAMPLES, length), generator=g)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    ends = torch.randint(length // 3, length + 1, (EXAMPLES, 1), generator=g)
    for _ in range(2):
        at = (torch.rand(EXAMPLES, 1, generator=g) * ends).long()
        x.scatter_(1, at, y[:, None] + 1)
    return _split(x * (torch.arange(length) < ends), y)


@cache
def echo(length: int, lag: int = 3, symbols: int = 4) -> Split:
    """Symbols [N, T, V], and at each step the one of three steps ago [N, T]."""
    tokens = torch.randint(symbols, (EXAMPLES, length), generator=_drawn(19))
    return _split(one_hot(tokens, symbols).float(), tokens.roll(lag, 1))


@cache
def tones(length: int) -> Split:
    """Which of five tones a noisy wave [N, T, 1] of any phase is."""
    g = _drawn(20)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    speed = (0.25 + 0.15 * y)[:, None]
    x = (speed * torch.arange(length) + 2 * math.pi * torch.rand(EXAMPLES, 1, generator=g)).sin()
    return _split((x + 0.6 * torch.randn(EXAMPLES, length, generator=g))[..., None], y)


@cache
def orbits(length: int, examples: int = 120) -> Split:
    """A few curves, sums of two waves [N, T, 1], and where each goes next [N, 1]."""
    g = _drawn(21)
    t = torch.arange(length + 1.0)
    phase = 2 * math.pi * torch.rand(2, examples, 1, generator=g)
    x = (0.5 * t + phase[0]).sin() + 0.7 * (0.9 * t + phase[1]).sin()
    return _split(x[:, :-1, None], x[:, -1:])


@cache
def text(letters: int) -> Tensor:
    """Words of a small language with blanks between them [T], as numbers."""
    alphabet = sorted({*"".join(WORDS), " "})
    chosen = torch.randint(len(WORDS), (letters // 2,), generator=_drawn(22)).tolist()
    return torch.tensor([alphabet.index(letter) for letter in " ".join(WORDS[i] for i in chosen)][:letters])
