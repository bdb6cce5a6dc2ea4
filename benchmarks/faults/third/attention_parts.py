"""Data and networks of the third transformers. The data are the same at every call.

Shape legend: N = examples, T = tokens, F = features, W = width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split, changed, digits

KEYS, VALUES = 6, 5


def _drawn(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def _split(x: Tensor, y: Tensor) -> Split:
    cut = len(x) * 3 // 4
    return Split(x[:cut], y[:cut], x[cut:], y[cut:])


@cache
def ink() -> Split:
    """Digits as eight rows of how much ink there is, from 0 to 1 [N, T = 8, F = 8]."""
    return changed(digits("rows"), lambda x: (x + 1) / 2)


@cache
def pieces() -> Split:
    """Digits in pieces of two by two pixels [N, T = 16, F = 4]."""
    return changed(digits("image"), lambda x: F.unfold(x, 2, stride=2).transpose(1, 2).contiguous())


@cache
def motifs(*, nuisance: float = 0.0) -> Split:
    """Which of six short motifs is hidden somewhere in noise [N, T = 12, F = 4]; with two features of nothing."""
    g = _drawn(41)
    known = 1.6 * torch.randn(6, 2, 4, generator=g)
    x = 0.5 * torch.randn(2000, 12, 4, generator=g)
    y, at = torch.randint(6, (2000,), generator=g), torch.randint(11, (2000,), generator=g)
    for late in (0, 1):
        x[torch.arange(2000), at + late] += known[y, late]
    if nuisance:
        x = torch.cat([x, nuisance * torch.randn(2000, 12, 2, generator=g)], 2)
    return _split(x, y)


@cache
def springs() -> Split:
    """Points with masses [N, T = 16, F = 3]: centre of mass [N, 2] and how far they lie from it."""
    g = _drawn(42)
    x = torch.randn(2000, 16, 3, generator=g) * (0.4 + torch.rand(2000, 1, 3, generator=g))
    x[..., 2] = x[..., 2].abs()
    mass = x[..., 2:] / x[..., 2:].sum(1, keepdim=True)
    centre = (mass * x[..., :2]).sum(1, keepdim=True)
    away = (mass * (x[..., :2] - centre).square().sum(2, keepdim=True)).sum(1)
    y = torch.cat([centre[:, 0], away.sqrt()], 1)
    return _split(x, (y - y.mean(0)) / y.std(0))


@cache
def records() -> Split:
    """Keys with values, and a key alone at the end, one-hot [N, T = 5, F = 11]: what is its value."""
    g = _drawn(43)
    keys = torch.rand(2000, KEYS, generator=g).argsort(1)[:, :4]
    values = torch.randint(VALUES, (2000, 4), generator=g)
    asked = torch.randint(4, (2000, 1), generator=g)
    told = torch.cat([F.one_hot(keys, KEYS), F.one_hot(values, VALUES)], 2)
    last = F.pad(F.one_hot(keys.gather(1, asked), KEYS), (0, VALUES))
    return _split(torch.cat([told, last], 1).float(), values.gather(1, asked)[:, 0])


class Attention(nn.Module):
    """Several heads; shares by a softmax, or each for itself by a sigmoid with a bias."""

    def __init__(self, width: int, heads: int, bias: float | None = None) -> None:
        super().__init__()
        self.heads, self.bias = heads, bias
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        liked = q @ k.mT / math.sqrt(q.shape[-1])
        share = liked.softmax(-1) if self.bias is None else (liked + self.bias).sigmoid()
        return self.out((share @ v).transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """Attention and two linear layers, each with a norm before it, or none, and a path around it."""

    def __init__(
        self,
        width: int,
        heads: int = 2,
        *,
        bias: float | None = None,
        norm: bool = True,
        act: Callable[[], nn.Module] = nn.SiLU,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = Attention(width, heads, bias)
        self.change = nn.Sequential(
            nn.Linear(width, 2 * width), act(), nn.Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) if norm else nn.Identity() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.change(self.norms[1](x))


class Carrying(nn.Module):
    """Attention and a tanh layer, of which a gate says at each how much of it is taken and how much is carried on."""

    def __init__(self, width: int, bias: float) -> None:
        super().__init__()
        self.attention, self.change = Attention(width, 2), nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.gates = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        for gate in self.gates:
            nn.init.constant_(gate.bias, bias)

    def forward(self, x: Tensor) -> Tensor:
        for gate, branch in zip(self.gates, (self.attention, self.change), strict=True):
            x = torch.lerp(x, branch(x), gate(x).sigmoid())
        return x


class Stem(nn.Module):
    """Parts of each token that are there or not, and a linear layer that adds them up."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.parts, self.act, self.sums = (
            nn.Linear(inputs, 2 * width, bias=False),
            nn.ReLU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.sums(self.act(self.parts(x)))


class Columns(nn.Module):
    """A direction for each column, times its number."""

    def __init__(self, columns: int, width: int) -> None:
        super().__init__()
        self.directions = nn.Parameter(0.5 * torch.randn(columns, width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.directions


class Codes(nn.Module):
    """Two layers on each token, and the nearest of some codes in place of what they give.

    Where it ``passes``, the gradient goes on to the layers as if nothing had been replaced.
    """

    def __init__(self, inputs: int, width: int, codes: int, *, passes: bool) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.codes, self.passes, self.cost = nn.Embedding(codes, width), passes, torch.zeros(())
        nn.init.normal_(self.codes.weight, std=0.3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.encode(x)
        nearest = self.codes(torch.cdist(h, self.codes.weight).argmin(-1))
        if not self.passes:
            return nearest
        self.cost = F.mse_loss(nearest, h.detach()) + 0.25 * F.mse_loss(h, nearest.detach())
        return h + (nearest - h).detach()


class Hash(nn.Module):
    """A few bits, by a tanh that becomes steeper with each batch, and a head on them."""

    def __init__(self, width: int, bits: int, outputs: int, *, each: float, most: float) -> None:
        super().__init__()
        self.bits, self.act, self.head = nn.Linear(width, bits), nn.Tanh(), nn.Linear(bits, outputs)
        self.steepness, self.each, self.most = 1.0, each, most

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.steepness = min(self.steepness + self.each, self.most)
        return self.head(self.act(self.steepness * self.bits(x)))


class Encoder(nn.Module):
    """Embed, layers, and a head on a token of its own, on the last one, or on the mean of all."""

    def __init__(
        self, embed: nn.Module, layers: list[nn.Module], head: nn.Module, *, width: int, reading: str = "mean"
    ) -> None:
        super().__init__()
        self.embed, self.reading = embed, reading
        self.place = nn.Parameter(0.3 * torch.randn(32, width))
        self.own = nn.Parameter(0.3 * torch.randn(1, 1, width)) if reading == "own" else None
        self.layers, self.head = nn.Sequential(*layers), head

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x)
        h = h + self.place[: h.shape[1]]
        if self.own is not None:
            h = torch.cat([h, self.own.expand(len(h), -1, -1)], 1)
        h = self.layers(h)
        return self.head(h.mean(1) if self.reading == "mean" else h[:, -1])
