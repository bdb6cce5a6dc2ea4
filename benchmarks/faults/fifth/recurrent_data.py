"""Sequences of the fifth recurrent programs. The same at every call.

Shape legend: N = examples, T = time, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split, changed, digits

EXAMPLES = 2400
LETTERS = "_IVXLCDM<"  # of Roman numbers: what fills them up, the letters, and where one starts
DIGITS = 3  # of the numbers that are written so
OFTEN = (0.5, 0.25, 0.15, 0.1)  # shares of complaints


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


def _series(g: Generator, shape: tuple[int, ...], kept: float) -> Tensor:
    """Give series that forget their past slowly, of variance 1, over the second dimension."""
    x = torch.randn(shape, generator=g)
    for t in range(1, shape[1]):
        x[:, t] = kept * x[:, t - 1] + math.sqrt(1 - kept**2) * x[:, t]
    return x


@cache
def heading(length: int = 20) -> Split:
    """How fast somebody turns [N, T, 1]; the cosine and sine of where he looks after all [N, 2]."""
    turns = _series(_drawn(61), (EXAMPLES, length), 0.6)
    angle = 0.12 * turns.sum(1)
    return _split(turns[..., None], torch.stack([angle.cos(), angle.sin()], 1))


@cache
def visits(length: int = 16, *, hours: bool = False) -> Split:
    """Two values at each visit and the days or hours until the next [N, T, 3]; what adds up over that time [N, 1]."""
    g = _drawn(62)
    values = _series(g, (EXAMPLES, length, 2), 0.7)
    days = 0.02 + 0.08 * -torch.rand(EXAMPLES, length, generator=g).clamp(min=1e-3).log()
    y = ((values[..., 0] - 0.5 * values[..., 1]).relu() * days).sum(1)
    gap = days * 24 if hours else days
    return _split(torch.cat([values, gap[..., None]], 2), _standard(y)[:, None])


@cache
def asked(length: int = 20) -> Split:
    """A request of one of three, told at the first step alone, and noise [N, T, 4]; with the sign of the last value."""
    g = _drawn(63)
    x = torch.randn(EXAMPLES, length, 4, generator=g)
    request = torch.randint(3, (EXAMPLES,), generator=g)
    x[..., :3] *= 0.1
    x[torch.arange(EXAMPLES), 0, request] += 1
    return _split(x, 2 * request + (x[:, -1, 3] > 0).long())


@cache
def decays(length: int = 16, *, integers: bool = False) -> Split:
    """How loud four bands of a sound are, of 1 at most [N, T, 4], or of 32,767; how fast it fades away [N, 1]."""
    g = _drawn(64)
    fade = 0.03 * (4 * torch.rand(EXAMPLES, 1, generator=g)) ** 0.8 + 0.02
    loud = 0.3 + 0.5 * torch.rand(EXAMPLES, 1, 4, generator=g)
    x = (
        loud
        * (-fade * torch.arange(length)).exp()[..., None]
        * (0.1 * torch.randn(EXAMPLES, length, 4, generator=g)).exp()
    )
    x = x.clamp(max=1)
    return _split((x * 32767).round() if integers else x, _standard(fade))


@cache
def buoys(length: int = 20, sensors: int = 5, *, filled: bool = True) -> Split:
    """What buoys measure, a quarter of it missing [N, T, F]; the swell a step later [N, 1].

    What is missing is filled by the mean, which is 0; or it is -9999, as it is told.
    """
    g = _drawn(65)
    swell = _series(g, (EXAMPLES, length + 1), 0.9)
    seen = swell[:, :-1, None] + 0.6 * torch.randn(EXAMPLES, length, sensors, generator=g)
    missing = torch.rand(seen.shape, generator=g) < 0.25
    return _split(seen.masked_fill(missing, 0.0 if filled else -9999.0), swell[:, -1:])


@cache
def gestures(length: int = 20, *, turned: bool = False) -> Split:
    """What a hand's sensor feels along three axes [N, T, 3], in one of five gestures."""
    g = _drawn(67 if turned else 66)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    at = torch.arange(length) * (0.5 + 0.2 * torch.rand(EXAMPLES, 1, generator=g))
    at = at + 6.3 * torch.rand(EXAMPLES, 1, generator=g)
    none, sine, cosine = torch.zeros_like(at), at.sin(), at.cos()
    forms = [(sine, cosine, none), (sine, none, none), (none, sine, none), (none, none, sine), (sine, none, cosine)]
    x = torch.stack([torch.stack(form, 2) for form in forms])[y, torch.arange(EXAMPLES)]
    x = (0.5 + 0.5 * torch.rand(EXAMPLES, 1, 1, generator=g)) * x + 0.25 * torch.randn(x.shape, generator=g)
    x = x + torch.tensor([0.0, 0.0, 1.0])
    return _split(x[..., [2, 0, 1]] * torch.tensor([-1.0, 1.0, -1.0]) if turned else x, y)


@cache
def traffic(length: int = 18, *, raw: bool = False) -> Split:
    """What a server sends in each minute and who comes to it [N, T, 2]; what it sends three minutes later [N, 1].

    What it sends is standardised, or in bytes.
    """
    g = _drawn(74)
    shape = (EXAMPLES, length + 3)
    users = torch.rand(shape, generator=g) * (torch.rand(shape, generator=g) < 0.1)
    level, open_ = torch.randn(EXAMPLES, generator=g), torch.zeros(EXAMPLES)
    levels = []
    for came in users.unbind(1):
        open_ = 0.8 * open_ + came
        level = 0.93 * level + 0.25 * (open_ - 0.25) + 0.08 * torch.randn(EXAMPLES, generator=g)
        levels.append(level)
    x = torch.stack(levels, 1)
    seen = ((4 + x).clamp(min=0) * 1e6).round() if raw else x
    return _split(torch.stack([seen, users], 2)[:, :length], x[:, -1:])


@cache
def complaints(length: int = 15, words: int = 50) -> Split:
    """Complaints [N, T] about four things, of which one makes up half; some words tell which, most don't."""
    g = _drawn(68)
    y = torch.multinomial(torch.tensor(OFTEN), EXAMPLES, replacement=True, generator=g)
    x = torch.randint(17, words, (EXAMPLES, length), generator=g)
    for _ in range(2):
        telling = 1 + 4 * y + torch.randint(4, (EXAMPLES,), generator=g)
        x[torch.arange(EXAMPLES), torch.randint(length, (EXAMPLES,), generator=g)] = telling
    other = torch.randint(1, 17, (EXAMPLES,), generator=g)
    x[torch.arange(EXAMPLES), torch.randint(length, (EXAMPLES,), generator=g)] = other
    return _split(x, y)


@cache
def pendulum(length: int = 24) -> Split:
    """What pushes a pendulum [N, T, 1], and its angle at each moment [N, 1, T]."""
    push = 1.5 * _series(_drawn(69), (EXAMPLES, length), 0.8)
    angle = speed = torch.zeros(EXAMPLES)
    angles = []
    for now in push.unbind(1):
        speed = speed + 0.25 * (now - angle.sin() - 0.4 * speed)
        angle = angle + 0.25 * speed
        angles.append(angle)
    return _split(push[..., None], _standard(torch.stack(angles, 1))[:, None])


@cache
def markup(length: int = 24) -> Split:
    """Windows of a text with tags around its words, as numbers of letters [N, T], and the letter after each [N, T]."""
    g = _drawn(70)
    tags, words = ("b", "em", "pre", "code"), ("loss", "step", "rate", "model", "batch", "weight")

    def any_of(items: tuple[str, ...]) -> str:
        return items[int(torch.randint(len(items), (), generator=g))]

    parts = []
    for _ in range(4000):
        tag, word = any_of(tags), any_of(words)
        parts.append(f"<{tag}>{word} {any_of(words)}</{tag}> " if torch.rand((), generator=g) < 0.6 else f"{word} ")
    text = "".join(parts)
    alphabet = sorted(set(text))
    letters = torch.tensor([alphabet.index(letter) for letter in text])
    windows = letters[: EXAMPLES * 20 + length + 1].unfold(0, length + 1, 20)
    return _split(windows[:, :-1].contiguous(), windows[:, 1:].contiguous())


@cache
def sales(length: int = 14) -> Split:
    """What a shop sold on each day, in tens of pieces [N, T, 1], nothing on Sundays; what it sells next [N, 1]."""
    g = _drawn(71)
    days = torch.arange(length + 1) + torch.randint(7, (EXAMPLES, 1), generator=g)
    level = (0.4 * torch.randn(EXAMPLES, 1, generator=g)).exp() * 20
    week = torch.tensor([0.8, 0.9, 1.0, 1.2, 1.5, 1.8, 0.0])[days % 7]
    sold = torch.poisson(level * week, generator=g) / 10
    return _split(sold[:, :-1, None], sold[:, -1:])


def _roman(number: int) -> str:
    written = ""
    values = (900, 500, 400, 100, 90, 50, 40, 10, 9, 5, 4, 1)
    for value, sign in zip(values, ("CM", "D", "CD", "C", "XC", "L", "XL", "X", "IX", "V", "IV", "I"), strict=True):
        written += sign * (number // value)
        number %= value
    return written


@cache
def romans(length: int = 13) -> Split:
    """Digits of a number and the letters before each that is asked for [N, 3 + T]; the number in Roman [N, T]."""
    signs = [[LETTERS.index(letter) for letter in _roman(number).ljust(length, "_")] for number in range(1000)]
    y = torch.tensor(signs)
    before = torch.cat([torch.full((1000, 1), LETTERS.index("<")), y[:, :-1]], 1)
    digits = torch.tensor([[number // 100, number // 10 % 10, number % 10] for number in range(1000)])
    order = torch.randperm(1000, generator=_drawn(72))
    return _split(torch.cat([digits, before], 1)[order], y[order])


@cache
def tides(length: int = 20, examples: int = 160) -> Split:
    """The height of the sea at each of T hours [N, T, 1], and in the next [N, 1]."""
    g = _drawn(73)
    at = torch.arange(length + 1) + 600 * torch.rand(examples, 1, generator=g)
    x = (2 * math.pi * at / 12.42).sin() + 0.5 * (2 * math.pi * at / 12).sin() + 0.3 * (2 * math.pi * at / 23.9).cos()
    x = x + 0.05 * torch.randn(x.shape, generator=g)
    return _split(x[:, :-1, None], x[:, -1:])


@cache
def bright() -> Split:
    """Digits, a row at a step [N, 8, 8], between 0 and 1."""
    return changed(digits("rows"), lambda x: (x + 1) / 2)
