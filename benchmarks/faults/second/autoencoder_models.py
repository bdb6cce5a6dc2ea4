"""Data, networks and losses of the autoencoders.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import layers
from benchmarks.faults.program import Loop


def _itself(x: Tensor, test: Tensor) -> Split:
    return Split(x, x, test, test)


@cache
def images(*, unit: bool = True) -> Split:
    """Digits between 0 and 1, or between -1 and 1: [N, 64]."""
    of = data.digits()
    return _itself((of.x + 1) / 2, (of.x_test + 1) / 2) if unit else _itself(of.x, of.x_test)


@cache
def standard(*, least: float = 1e-3) -> Split:
    """Digits, of which each pixel as an input has mean 0 and variance 1, or is 0 where it never changes: [N, 64]."""
    of = images()
    mean, std = of.x.mean(0), of.x.std(0).clamp(min=least)
    return of._replace(x=(of.x - mean) / std, x_test=(of.x_test - mean) / std)


@cache
def table() -> Split:
    """Measurements of tumours: [N, 30]."""
    of = data.cancer()
    return _itself(of.x, of.x_test)


@cache
def spectra(bands: int = 48) -> Split:
    """Two lines each, at places, of heights and widths that differ: [N, F]."""
    g = torch.Generator().manual_seed(31)
    at = torch.linspace(0, 1, bands)
    place, height, width = (torch.rand(2400, 2, 1, generator=g) for _ in range(3))
    lines = (0.5 + height) * (-(((at - 0.5 * place - torch.tensor([[0.0], [0.5]])) / (0.05 + 0.1 * width)) ** 2)).exp()
    x = lines.sum(1) + 0.02 * torch.randn(2400, bands, generator=g)
    return _itself(x[:1800], x[1800:])


def stack(
    inputs: int,
    outputs: int,
    *,
    sizes: tuple[int, ...] = (40, 12, 40),
    act: Callable[[], nn.Module] = nn.SiLU,
) -> nn.Sequential:
    """Build layers of some sizes, and a linear one."""
    parts: list[nn.Module] = []
    for into, out in pairwise((inputs, *sizes)):
        parts += [nn.Linear(into, out), act()]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], outputs))


class Sine(nn.Module):
    """An activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Give sines."""
        return x.sin()


class Penalised(nn.Module):
    """Gives the image and the code, whose size is to be paid for: [N, F + codes]."""

    def __init__(self, inputs: int, outputs: int, codes: int = 80) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, codes), nn.ReLU())
        self.decode = nn.Linear(codes, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give both."""
        code = self.encode(x)
        return torch.cat([self.decode(code), code], 1)


def penalty(weight: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Build the squared error with an L1 penalty of the code."""
    return lambda out, y: F.mse_loss(out[:, : y.shape[1]], y) + weight * out[:, y.shape[1] :].abs().sum(1).mean()


class Strongest(nn.Module):
    """Leaves the few strongest units of each example on: Makhzani & Frey, 2014."""

    def __init__(self, few: int) -> None:
        super().__init__()
        self.few = few

    def forward(self, x: Tensor) -> Tensor:
        """Give the same, with zeros."""
        return x * (x >= x.topk(self.few, 1).values[:, -1:])


def strongest(inputs: int, outputs: int, codes: int = 100, few: int = 10) -> nn.Module:
    """Build a code of which a tenth is on."""
    return nn.Sequential(nn.Linear(inputs, codes), Strongest(few), nn.ReLU(), nn.Linear(codes, outputs))


class Shortcut(nn.Module):
    """A branch that is nothing at the start, and a share of what comes in."""

    def __init__(self, width: int, share: float) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.share = share
        nn.init.zeros_(self.branch[2].weight)

    def forward(self, x: Tensor) -> Tensor:
        """Add, and take a share."""
        return self.share * (x + self.branch(x))


def shortcuts(inputs: int, outputs: int, *, share: float = 1.0, width: int = 24, depth: int = 8) -> nn.Module:
    """Build a deep encoder and decoder around a code of ten."""
    down, up = ([Shortcut(width, share) for _ in range(depth)] for _ in range(2))
    middle = (nn.Linear(width, 10), nn.Linear(10, width))
    return nn.Sequential(nn.Linear(inputs, width), *down, *middle, *up, nn.Linear(width, outputs))


class Code(nn.Module):
    """A code near -1 and 1, by a tanh that is so steep."""

    def __init__(self, inputs: int, outputs: int, steep: float = 2.0, codes: int = 24) -> None:
        super().__init__()
        self.encode, self.steep, self.act = nn.Linear(inputs, codes), steep, nn.Tanh()
        self.decode = nn.Sequential(nn.Linear(codes, 48), nn.ReLU(), nn.Linear(48, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Give images."""
        return self.decode(self.act(self.steep * self.encode(x)))


def hidden(number: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Hide half of the pixels."""
    return x * (torch.rand_like(x) < 0.5), y


def drawn(network: nn.Module) -> None:
    """Draw all weights by ``torch.randn``, as it is."""
    for layer in layers(network):
        layer.weight.normal_()
        layer.bias.normal_()


def repeated(network: nn.Module) -> None:
    """Make all units of the code, and their ways out, the same."""
    into, out = layers(network)[1:3]
    into.weight.copy_(into.weight[:1].clone())
    into.bias.fill_(0.0)
    out.weight.copy_(out.weight.mean(1, keepdim=True).clone())


def again(lr: float) -> Loop:
    """Keep the encoder of an autoencoder that was trained before, and learn a new decoder."""
    of = images(unit=False)
    encode = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 14), nn.Tanh())
    old = nn.Linear(14, 64)
    optimizer = torch.optim.Adam([*encode.parameters(), *old.parameters()], lr=3e-3)
    for _ in range(250):
        x = of.x[torch.randint(len(of.x), (64,))]
        optimizer.zero_grad()
        F.mse_loss(old(encode(x)), x).backward()
        optimizer.step()
    encode.zero_grad()
    encode.requires_grad_(False)
    decode = nn.Sequential(nn.Linear(14, 48), nn.ELU(), nn.Linear(48, 64))
    return supervised(nn.Sequential(*encode, *decode), of, lr, batch=48)
