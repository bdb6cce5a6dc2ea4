"""Sequences of the sixth recurrent programs. The same at every call.

Shape legend: N = examples, T = time, F = features.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Generator, Tensor

from benchmarks.faults.data import Split

EXAMPLES = 2400


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean()) / x.std()


@cache
def cues(length: int = 44) -> Split:
    """One of four directions in the first four moments, and noise at all of them [N, T, 2]."""
    g = _drawn(81)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    x = 0.6 * torch.randn(EXAMPLES, length, 2, generator=g)
    angle = y * math.pi / 2
    x[:, :4] += 1.5 * torch.stack([angle.cos(), angle.sin()], 1)[:, None]
    return _split(x, y)


@cache
def locks(length: int = 18, symbols: int = 4) -> Split:
    """Keys that are pressed, of which the first bears a mark [N, T, V + 1]: which one that was."""
    pressed = torch.randint(symbols, (EXAMPLES, length), generator=_drawn(82))
    x = torch.cat([torch.nn.functional.one_hot(pressed, symbols).float(), torch.zeros(EXAMPLES, length, 1)], 2)
    x[:, 0, -1] = 1
    return _split(x, pressed[:, 0])


@cache
def tanks(length: int = 12) -> Split:
    """What flows into a tank and what is asked of it [N, T, 2]; how full it is in the end, never less than empty."""
    x = torch.rand(EXAMPLES, length, 2, generator=_drawn(83))
    level = torch.full((EXAMPLES,), 0.5)
    for came, went in (now.unbind(1) for now in x.unbind(1)):
        level = (level + came - went).relu()
    return _split(x, _standard(level)[:, None])


@cache
def calls(length: int = 12, bands: int = 8, *, power: bool = False) -> Split:
    """How loud bands of four birds' calls are, in decibels about 40 [N, T, F]; or the power as it is measured."""
    g = _drawn(84)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    at = torch.linspace(-1, 1, length)
    forms = torch.stack([at, -at, at.square() * 2 - 1, 1 - 2 * at.square()])[y]
    middle = (bands - 1) / 2 + torch.randn(EXAMPLES, 1, generator=g)
    pitch = middle + 2 * forms
    away = torch.arange(bands) - pitch[..., None]
    loud = 30 + 22 * (-0.5 * away.square()).exp() + 5 * torch.randn(EXAMPLES, length, bands, generator=g)
    return _split((loud / 10 * math.log(10)).exp() if power else (loud - 40) / 10, y)


@cache
def taxis(length: int = 12, *, grid: bool = False) -> Split:
    """Where a taxi was [N, T, 2], and how far it goes in the next two minutes, along both axes [N, 2].

    Where it was is told in kilometres from where it is now, or as metres of a zone of the UTM.
    """
    g = _drawn(85)
    speed, place, places = 0.3 * torch.randn(EXAMPLES, 2, generator=g), torch.zeros(EXAMPLES, 2), []
    for _ in range(length + 2):
        speed = 0.9 * speed + 0.07 * torch.randn(EXAMPLES, 2, generator=g)
        place = place + speed
        places.append(place)
    track = torch.stack(places, 1)
    now, after = track[:, length - 1], track[:, -1]
    corner = torch.tensor([391_000.0, 5_820_000.0]) + 5000 * torch.randn(EXAMPLES, 1, 2, generator=g)
    x = track[:, :length]
    return _split(corner + 1000 * x if grid else x - now[:, None], _standard(after - now))


@cache
def load(length: int = 24) -> Split:
    """What a town uses in each hour of a day [N, T, 1], and in the next, with noise that grows with it [N, 1]."""
    g = _drawn(86)
    at = torch.arange(length + 1) + torch.randint(24, (EXAMPLES, 1), generator=g)
    day = (2 * math.pi * at / 24).sin() + 0.5 * (4 * math.pi * at / 24).cos()
    level = 0.5 * torch.randn(EXAMPLES, 1, generator=g)
    x = level + day + 0.1 * (1.5 + day.clamp(min=-1)) * torch.randn(day.shape, generator=g)
    return _split(x[:, :-1, None], x[:, -1:])


@cache
def speakers(longest: int = 14, bands: int = 6) -> Split:
    """Frames of what one of five people says, 1 to T of them and then zeros [N, T, F]."""
    g = _drawn(87)
    y = torch.randint(5, (EXAMPLES,), generator=g)
    means, spreads = 0.7 * torch.randn(5, bands, generator=g), 0.5 + torch.rand(5, bands, generator=g)
    x = means[y][:, None] + spreads[y][:, None] * torch.randn(EXAMPLES, longest, bands, generator=g)
    lengths = torch.randint(1, longest + 1, (EXAMPLES, 1), generator=g)
    return _split(x * (torch.arange(longest) < lengths)[..., None], y)


@cache
def reviews(length: int = 14, words: int = 70) -> Split:
    """Reviews [N, T] that praise one of four things by two words, and another by one; the rest says nothing."""
    g = _drawn(88)
    y = torch.randint(4, (EXAMPLES,), generator=g)
    x = torch.randint(33, words, (EXAMPLES, length), generator=g)
    places = torch.rand(EXAMPLES, length, generator=g).argsort(1)
    other = (y + torch.randint(1, 4, (EXAMPLES,), generator=g)) % 4
    for place, of in zip(places.unbind(1), (y, y, other), strict=False):
        x[torch.arange(EXAMPLES), place] = 1 + 8 * of + torch.randint(8, (EXAMPLES,), generator=g)
    return _split(x, y)


@cache
def pilot(length: int = 10) -> Split:
    """Where a boat is, badly measured, and the wind [N, T, 3]; whether a pilot steers left, ahead or right."""
    g = _drawn(89)
    place, speed = torch.randn(EXAMPLES, 2, generator=g).unbind(1)
    seen, wind = [], torch.randn(EXAMPLES, generator=g)
    for _ in range(length):
        wind = 0.8 * wind + 0.6 * torch.randn(EXAMPLES, generator=g)
        speed = 0.9 * speed + 0.1 * wind - 0.05 * place
        place = place + 0.3 * speed
        noise = 0.1 * torch.randn(EXAMPLES, generator=g)
        seen.append(torch.stack([place + noise, wind, torch.ones(EXAMPLES)], 1))
    wish = place + 1.5 * speed
    return _split(torch.stack(seen, 1), (wish > 0.5).long() + (wish > -0.5).long())


@cache
def chords(length: int = 16, symbols: int = 12) -> Split:
    """Chords of songs [N, T], and what follows each [N, T]: mostly what the last and the one before it ask for."""
    g = _drawn(90)
    table = torch.randint(symbols, (symbols, 2), generator=g)
    song = torch.randint(symbols, (EXAMPLES, length + 1), generator=g)
    for t in range(2, length + 1):
        asked = table[song[:, t - 1], song[:, t - 2] % 2]
        song[:, t] = torch.where(torch.rand(EXAMPLES, generator=g) < 0.85, asked, song[:, t])
    return _split(song[:, :-1], song[:, 1:])


@cache
def typing(length: int = 16) -> Split:
    """How long each key is held and how long until the next, as logarithms [N, T, 2]: who of six types."""
    g = _drawn(91)
    y = torch.randint(6, (EXAMPLES,), generator=g)
    habits, own = 0.6 * torch.randn(6, 2, generator=g), 0.3 + 0.5 * torch.rand(6, 2, generator=g)
    x = habits[y][:, None] + own[y][:, None] * torch.randn(EXAMPLES, length, 2, generator=g)
    x[:, 1:, 0] += 0.3 * torch.randn(6, 1, generator=g)[y] * x[:, :-1, 1]
    return _split(x, y)


@cache
def clicks(length: int = 8, items: int = 40, interests: int = 8) -> Split:
    """What a visitor looked at [N, T], mostly of one of his interests in turn, and what he looks at next."""
    g = _drawn(92)
    size = items // interests
    interest, at = torch.randint(interests, (EXAMPLES,), generator=g), torch.randint(size, (EXAMPLES,), generator=g)
    seen = []
    for _ in range(length + 1):
        seen.append(interest * size + at)
        at = (at + 1) % size
    x = torch.stack(seen, 1)
    strays = torch.rand(EXAMPLES, length, generator=g) < 0.15
    x[:, :-1] = torch.where(strays, torch.randint(items, (EXAMPLES, length), generator=g), x[:, :-1])
    return _split(x[:, :-1], x[:, -1])
