"""Data, networks and losses of the third generation's autoencoders.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data, drawing
from benchmarks.faults.data import Split
from benchmarks.faults.planting import layers


def _itself(x: Tensor, test: int = 600) -> Split:
    return Split(x[:-test], x[:-test], x[-test:], x[-test:])


@cache
def minerals(kinds: int = 6, bands: int = 40) -> Split:
    """Spectra of grounds that are made up of a few minerals: [N, F]."""
    g = drawing.drawn(61)
    at = torch.linspace(0, 1, bands)
    place, width = torch.rand(kinds, 3, 1, generator=g), 0.04 + 0.1 * torch.rand(kinds, 3, 1, generator=g)
    pure = 1 - (0.7 * torch.rand(kinds, 3, 1, generator=g) * (-(((at - place) / width) ** 2)).exp()).sum(1)
    share = (2.5 * torch.randn(2600, kinds, generator=g)).softmax(1)
    x = 6 * (share @ pure + 0.01 * torch.randn(2600, bands, generator=g))
    return _itself(x - x.mean(0))


@cache
def ink() -> Split:
    """Digits between 0, where there is no ink, and 1: [N, 64]."""
    of = data.digits()
    x, test = (of.x + 1) / 2, (of.x_test + 1) / 2
    return Split(x, x, test, test)


@cache
def absorbance(bands: int = 36, *, by_variance: bool = False) -> Split:
    """Absorbances of mixtures, about 0.01 each; as inputs, less their mean, over their deviation or their variance."""
    g = drawing.drawn(62)
    at, place = torch.linspace(0, 1, bands), torch.rand(7, 1, generator=g)
    lines = (-(((at - place) / (0.03 + 0.1 * torch.rand(7, 1, generator=g))) ** 2)).exp()
    raw = 0.02 * torch.rand(2600, 7, generator=g) @ lines + 5e-4 * torch.randn(2600, bands, generator=g)
    mean, std = raw.mean(0), raw.std(0)
    x, y = (raw - mean) / (std.square() if by_variance else std), (raw - mean) / std
    return Split(x[:-600], y[:-600], x[-600:], y[-600:])


@cache
def histograms(bins: int = 30) -> Split:
    """Shares of 30 bins, in parts of ten, many of which are empty: [N, F]."""
    g = drawing.drawn(63)
    at = torch.arange(float(bins))
    middle, width = bins * torch.rand(2400, 2, 1, generator=g), 1.5 + 3 * torch.rand(2400, 2, 1, generator=g)
    density = (torch.rand(2400, 2, 1, generator=g) * (-(((at - middle) / width) ** 2)).exp()).sum(1) + 1e-3
    return _itself(torch.poisson(40 * density / density.sum(1, keepdim=True), generator=g) / 10)


@cache
def tides(length: int = 48) -> Split:
    """Sums of three swings whose periods are known and whose heights and phases are not: [N, F]."""
    g = drawing.drawn(64)
    at = 2 * math.pi * torch.arange(float(length)) / length
    height, phase = torch.rand(2600, 3, 1, generator=g), 2 * math.pi * torch.rand(2600, 3, 1, generator=g)
    x = (height * (torch.tensor([1.0, 2.3, 4.1])[:, None] * at + phase).sin()).sum(1)
    return _itself(x + 0.1 * torch.randn(2600, length, generator=g))


@cache
def grain() -> Split:
    """Grey patches of 8 by 8 of two photographs, less the mean of each: [N, 64]."""
    g = drawing.drawn(65)
    images = [
        torch.tensor(image, dtype=torch.float32).mean(2).div(64) for image in datasets.load_sample_images().images
    ]
    top = torch.randint(400, (3000, 2), generator=g)
    x = torch.stack([images[i % 2][a : a + 8, b : b + 8].flatten() for i, (a, b) in enumerate(top.tolist())])
    x = x - x.mean(1, keepdim=True)
    return _itself(x / x.std())


class Softmax(nn.Softmax):
    """Shares of one."""

    def __init__(self) -> None:
        super().__init__(dim=1)


def unmixing(inputs: int, outputs: int, *, act: Callable[[], nn.Module] = nn.ELU, codes: int = 10) -> nn.Module:
    """Build a code of shares between an encoder of four layers and one pure spectrum for each."""
    parts: list[nn.Module] = []
    for into, out in pairwise((inputs, 44, 36, 28)):
        parts += [nn.Linear(into, out), act()]
    return nn.Sequential(*parts, nn.Linear(28, codes), Softmax(), nn.Linear(codes, outputs))


def parts(inputs: int, outputs: int, *, codes: int = 56) -> nn.Module:
    """Build an encoder and a decoder of one layer each, whose weights are to be positive."""
    network = nn.Sequential(nn.Linear(inputs, codes), nn.ReLU(), nn.Linear(codes, outputs))
    with torch.no_grad():
        for layer in layers(network):
            layer.weight.abs_().mul_(0.5)
    return network


@torch.no_grad()
def project(sign: float, step: int, network: nn.Module) -> None:
    """Bring back the encoder's weights that are on the wrong side of zero, before the next step."""
    weight = layers(network)[0].weight
    weight.copy_(sign * (sign * weight).clamp(min=0))


def relative(least: float, output: Tensor, y: Tensor) -> Tensor:
    """Give the error as a share of what was to come."""
    return ((output - y).abs() / (y + least)).mean()


class Quantised(nn.Module):
    """Each part of the code is replaced by the nearest of some vectors: van den Oord et al., 2017.

    Gives the image, and what the code and the vectors cost: [N, F + 1].
    """

    def __init__(self, inputs: int, outputs: int, vectors: int = 24, size: int = 4, parts: int = 10) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 56), nn.SiLU(), nn.Linear(56, parts * size))
        self.book = nn.Parameter(0.5 * torch.randn(vectors, size))
        self.decode = nn.Sequential(nn.Linear(parts * size, 56), nn.SiLU(), nn.Linear(56, outputs))
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """Give both."""
        code = self.encode(x).unflatten(1, (-1, self.size))
        nearest = self.book[(code.unsqueeze(2) - self.book).square().sum(3).argmin(2)]
        cost = ((nearest - code.detach()).square() + 0.25 * (code - nearest.detach()).square()).mean((1, 2))
        through = code + (nearest - code).detach()
        return torch.cat([self.decode(through.flatten(1)), cost[:, None]], 1)


def quantising(output: Tensor, y: Tensor) -> Tensor:
    """Add both costs."""
    return F.mse_loss(output[:, :-1], y) + output[:, -1].mean()


def mostly_empty(network: nn.Module) -> None:
    """Leave one weight in twenty, and make it small: ``nn.init.sparse_`` as it is."""
    for layer in layers(network):
        nn.init.sparse_(layer.weight, sparsity=0.95)
        nn.init.zeros_(layer.bias)
