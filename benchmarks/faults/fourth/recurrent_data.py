"""Sequences of the fourth recurrent programs. The same at every call.

Shape legend: N = examples, T = time, F = features.
"""

from __future__ import annotations

import calendar
import math
from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

EXAMPLES = 2400
ASKED = 18  # letters of a date as people write it
PAD = " "


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def _standard(x: Tensor, dims: tuple[int, ...] = (0,)) -> Tensor:
    return (x - x.mean(dims)) / x.std(dims)


def _series(g: Generator, length: int, kept: float) -> Tensor:
    """Give series that forget their past slowly, of variance 1 [N, T]."""
    x = torch.randn(EXAMPLES, length, generator=g)
    for t in range(1, length):
        x[:, t] = kept * x[:, t - 1] + math.sqrt(1 - kept**2) * x[:, t]
    return x


@cache
def weather(length: int = 24, *, scaled: bool = True) -> Split:
    """Hours of temperature, pressure, humidity and wind [N, T, 4]; the temperature three hours later [N, 1].

    Where not ``scaled``, in kelvins, pascals, per cent and metres a second.
    """
    g = _drawn(41)
    air, wet, wind = (_series(g, length + 3, kept) for kept in (0.95, 0.8, 0.7))
    hour = torch.arange(length + 3) + torch.randint(24, (EXAMPLES, 1), generator=g)
    warm = 285 + 5 * (hour * math.pi / 12).sin() + 3 * air - wet
    warm = warm + 0.5 * torch.randn(warm.shape, generator=g)
    raw = torch.stack([warm, 101_325 + 700 * air, 65 + 15 * wet, 5 + 2 * wind], 2)
    return _split((_standard(raw, (0, 1)) if scaled else raw)[:, :length], _standard(warm[:, -1:]))


@cache
def meters(length: int = 30, *, readings: bool = False) -> Split:
    """What a house uses in each hour [N, T, 1], and what in the next four [N, 4]; or what its meter reads, in Wh."""
    g = _drawn(42)
    hour = torch.arange(length + 4) + torch.randint(24, (EXAMPLES, 1), generator=g)
    peak = (hour * math.pi / 12).sin().clamp(min=0) ** 2 + 0.5 * ((hour % 24 == 7) | (hour % 24 == 20)).float()
    size = (0.4 * torch.randn(EXAMPLES, 1, generator=g)).exp()
    used = 150 + 900 * size * peak + 60 * torch.rand(peak.shape, generator=g)
    first = 2e6 * torch.rand(EXAMPLES, 1, generator=g) + 2e5
    x = first + used.cumsum(1) if readings else _standard(used, (0, 1))
    return _split(x[:, :length, None], _standard(used[:, length:]))


@cache
def stations(length: int = 20) -> Split:
    """Values of four stations, three in ten of them missing, and which are there [N, T, 8]; whence a front came."""
    g = _drawn(43)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    angle = y * math.pi / 2
    places = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    delay = -(places @ torch.stack([angle.cos(), angle.sin()])).T
    passed = length / 2 + 5 * delay + 2 * torch.randn(EXAMPLES, 1, generator=g)
    x = (torch.arange(length)[None, :, None] - passed[:, None]).sigmoid() * 2 - 1
    x = x + 0.4 * torch.randn(x.shape, generator=g)
    there = torch.rand(x.shape, generator=g) > 0.3
    return _split(torch.cat([x * there, there.float()], 2), y)


@cache
def delayed(length: int = 30) -> Split:
    """A cue in the first five of T moments and then noise [N, T, 2]: the direction in which it pointed [N, 2]."""
    g = _drawn(44)
    angle = 2 * math.pi * torch.rand(EXAMPLES, generator=g)
    y = torch.stack([angle.cos(), angle.sin()], 1)
    x = 0.1 * torch.randn(EXAMPLES, length, 2, generator=g)
    x[:, :5] += y[:, None]
    return _split(x, y)


@cache
def agreement(length: int = 44, words: int = 24) -> Split:
    """Sentences [N, T] that begin with a subject, one of 8, and the form of the verb that it asks for at their end."""
    g = _drawn(45)
    x = torch.randint(8, words, (EXAMPLES, length), generator=g)
    x[:, 0] = torch.randint(8, (EXAMPLES,), generator=g)
    return _split(x, x[:, 0] % 4)


@cache
def levels(length: int = 24) -> Split:
    """Doses and the time since the last one [N, T, 2]; how much is in the blood after all, as it decays [N, 1]."""
    g = _drawn(46)
    dose, gap = torch.rand(EXAMPLES, length, generator=g), torch.rand(EXAMPLES, length, generator=g)
    level = torch.zeros(EXAMPLES)
    for t in range(length):
        level = level * (-gap[:, t]).exp() + dose[:, t]
    return _split(torch.stack([dose, gap], 2), _standard(level)[:, None])


@cache
def paths(length: int = 25) -> Split:
    """Steps of a walker [N, T, 2], and where they lead from where he was [N, 2]."""
    g = _drawn(47)
    heading = torch.cumsum(0.5 * torch.randn(EXAMPLES, length, generator=g), 1)
    heading = heading + 2 * math.pi * torch.rand(EXAMPLES, 1, generator=g)
    speed = torch.rand(EXAMPLES, length, generator=g)
    x = torch.stack([speed * heading.cos(), speed * heading.sin()], 2)
    return _split(x, _standard(x.sum(1)))


@cache
def intents(length: int = 14, words: int = 60) -> Split:
    """Requests of 5 to 14 words, padded with 0 [N, T], and which of five they are, by two words of each in order."""
    g = _drawn(48)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    x = torch.randint(21, words, (EXAMPLES, length), generator=g)
    ends = torch.randint(5, length + 1, (EXAMPLES, 1), generator=g)
    each = torch.arange(EXAMPLES)
    at = (torch.rand(EXAMPLES, generator=g) * (ends[:, 0] - 2)).long()
    x[each, at] = 1 + 2 * y + torch.randint(2, (EXAMPLES,), generator=g)
    x[each, at + 1] = 11 + 2 * y + torch.randint(2, (EXAMPLES,), generator=g)
    return _split(x * (torch.arange(length) < ends), y)


@cache
def keywords(length: int = 20) -> Split:
    """Frames of a spoken word [N, T, 8], each of three sounds of 4 to 6 frames: which of six orders it was."""
    g = _drawn(49)
    sounds = torch.randn(4, 8, generator=g)
    orders = torch.tensor([[0, 1, 2], [1, 0, 2], [2, 1, 0], [0, 2, 3], [3, 2, 1], [1, 3, 0]])
    y = torch.randint(6, (EXAMPLES,), generator=g)
    ends = torch.randint(4, 7, (EXAMPLES, 3), generator=g).cumsum(1)
    which = (torch.arange(length)[None, :, None] >= ends[:, None]).sum(2)
    spoken = torch.cat([sounds, torch.zeros(1, 8)])[torch.cat([orders[y], torch.full((EXAMPLES, 1), 4)], 1)]
    x = spoken[torch.arange(EXAMPLES)[:, None], which]
    return _split(x + 0.5 * torch.randn(x.shape, generator=g), y)


@cache
def log_lines(length: int = 24) -> Split:
    """Windows of a log, as numbers of letters [N, T], and the letter after each [N, T]."""
    g = _drawn(50)
    levels_of = {"info": ("started", "user logged in", "cache cleared"), "warn": ("disk is nearly full", "slow query"),
                 "error": ("timeout", "no such file", "out of memory")}  # fmt: skip
    text = ""
    while len(text) < EXAMPLES * length + 1:
        hour, minute, level, message = torch.randint(60, (4,), generator=g).tolist()
        name = [*levels_of][level % 3]
        text += f"{hour % 24:02}:{minute:02} {name}: {levels_of[name][message % len(levels_of[name])]}\n"
    alphabet = sorted({*text})
    tokens = torch.tensor([alphabet.index(letter) for letter in text[: EXAMPLES * length + 1]])
    return _split(tokens[:-1].reshape(EXAMPLES, length), tokens[1:].reshape(EXAMPLES, length))


@cache
def demand(length: int = 21) -> Split:
    """What a shop sold on each of T days [N, T, 1], at least one piece, and the logarithm of the next day's [N, 1]."""
    g = _drawn(51)
    week = torch.tensor([0.0, 0.1, 0.0, 0.2, 0.5, 0.9, -0.8])
    day = (torch.arange(length + 1) + torch.randint(7, (EXAMPLES, 1), generator=g)) % 7
    rate = (week[day] + 2 + 0.7 * torch.randn(EXAMPLES, 1, generator=g)).exp()
    sold = torch.poisson(rate, generator=g).clamp(min=1)
    return _split(sold[:, :-1, None], _standard(sold[:, -1:].log1p()))


@cache
def beats(length: int = 32, *, counts: bool = False) -> Split:
    """Heart beats of four forms in millivolts [N, T, 1]; or as the 12 bits of a converter that is idle at 2,048."""
    g = _drawn(52)
    y = torch.randint(4, (EXAMPLES,), generator=g)[:, None]
    t = torch.arange(length) - 3 * torch.rand(EXAMPLES, 1, generator=g)

    def bump(at: float, width: Tensor | float) -> Tensor:
        return (-(((t - at) / width) ** 2)).exp()

    first, last = torch.where(y == 1, 0.0, 0.4), torch.where(y == 2, -0.5, 0.5)
    x = first * bump(6, 2.0) + bump(13, torch.where(y == 3, 3.0, 1.0)) + last * bump(24, 3.0)
    x = x + 0.1 * torch.randn(x.shape, generator=g)
    return _split((2048 + (200 * x).round() if counts else 2 * x)[..., None], y[:, 0])


@cache
def activities(length: int = 30) -> Split:
    """What three axes of a watch feel [N, T, 3] as its owner rests, walks, runs, climbs or rides."""
    g = _drawn(53)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    pace = torch.tensor([0.0, 0.55, 0.9, 0.45, 0.7])[y, None] + 0.04 * torch.randn(EXAMPLES, 1, generator=g)
    size = torch.tensor([[0.1, 0.1, 0.1], [0.5, 0.8, 0.3], [0.8, 1.4, 0.4], [0.4, 0.9, 0.7], [0.7, 0.2, 0.2]])[y]
    phase = 2 * math.pi * torch.rand(EXAMPLES, 1, 1, generator=g) + torch.tensor([0.0, 1.0, 2.0])
    x = size[:, None] * ((pace * torch.arange(length))[..., None] + phase).sin()
    return _split(x + 0.35 * torch.randn(x.shape, generator=g), y)


@cache
def dates() -> Split:
    """Dates as people write them, and the letters before each that is asked for [N, 18 + 10]; in ISO 8601 [N, 10]."""
    g, pairs = _drawn(54), []
    for day, month, year, form in torch.randint(10_000, (EXAMPLES, 4), generator=g).tolist():
        day, month, year = day % 28 + 1, month % 12 + 1, 1950 + year % 75
        name = calendar.month_name[month].lower()
        asked = (f"{name} {day}, {year}", f"{day} {name} {year}", f"{name[:3]} {day} {year}")[form % 3]
        pairs.append((asked.ljust(ASKED, PAD), f"{year}-{month:02}-{day:02}"))
    alphabet = sorted({letter for pair in pairs for word in pair for letter in word})
    x, y = (torch.tensor([[alphabet.index(c) for c in pair[i]] for pair in pairs]) for i in (0, 1))
    before = torch.cat([torch.full((EXAMPLES, 1), alphabet.index(PAD)), y[:, :-1]], 1)
    return _split(torch.cat([x, before], 1), y)


@cache
def tagged(length: int = 14) -> Split:
    """Sentences [N, T] and the kind of each word [N, T]; some words are what those beside them make of them."""
    g = _drawn(55)
    chances = torch.tensor([[0.0, 0.4, 0.6, 0, 0], [0, 0.2, 0.8, 0, 0], [0.1, 0, 0.1, 0.6, 0.2], [0.6, 0, 0, 0, 0.4],
                            [0.5, 0.3, 0.1, 0.1, 0]])  # fmt: skip
    y = torch.zeros(EXAMPLES, length, dtype=torch.long)
    for t in range(1, length):
        y[:, t] = torch.multinomial(chances[y[:, t - 1]], 1, generator=g)[:, 0]
    own = 8 * y + torch.randint(8, y.shape, generator=g)
    shared = 40 + torch.randint(8, y.shape, generator=g)
    either = ((y == 2) | (y == 3) | (y == 1)) & (torch.rand(y.shape, generator=g) < 0.4)
    return _split(torch.where(either, shared, own), y)


@cache
def copies(letters: int = 3, delay: int = 5) -> Split:
    """Letters, blanks and marks [N, T]; blanks, and the letters once more where the marks are [N, T]."""
    told = torch.randint(1, 5, (EXAMPLES, letters), generator=_drawn(56))
    wait = torch.zeros(EXAMPLES, delay, dtype=torch.long)
    x = torch.cat([told, wait, torch.full_like(told, 5)], 1)
    return _split(x, torch.cat([torch.zeros_like(told), wait, told], 1))
