"""Data of the second convolutional programs (waves, blobs, patches of photographs, digits that were moved).

Shape legend: N = examples, T = time.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from sklearn import datasets
from torch import Tensor
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.data import Split


def _cut(x: Tensor, y: Tensor) -> Split:
    first = 3 * len(x) // 4
    return Split(x[:first], y[:first], x[first:], y[first:])


@cache
def signals(mean: float = 0.0, unit: float = 1.0) -> Split:
    """Waves of five kinds, of any pitch, phase and loudness, with noise, [N, 1, T = 48]."""
    g = torch.Generator().manual_seed(11)
    y = torch.randint(5, (2000,), generator=g)
    pitch, phase, loudness = (torch.rand(2000, 1, generator=g) for _ in range(3))
    at = (torch.arange(48) / 48 * (2 + 3 * pitch) + phase).frac()
    kinds = [(2 * math.pi * at).sin(), (at - 0.5).sign(), 2 * at - 1, 1 - 2 * at, (at < 0.2).float()]
    x = torch.stack(kinds, 1)[torch.arange(2000), y] * (0.3 + 0.7 * loudness)
    return _cut(mean + unit * (x + 0.1 * torch.randn(2000, 48, generator=g))[:, None], y)


@cache
def blobs() -> Split:
    """Two discs in noise, and where they are, both [N, 1, 12, 12]: about a tenth of the pixels belong to them."""
    g = torch.Generator().manual_seed(12)
    centre, radius = 1 + 9 * torch.rand(800, 2, 2, 1, 1, generator=g), 1 + torch.rand(800, 2, 1, 1, generator=g)
    grid = torch.stack(torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij"))
    inside = ((grid - centre).square().sum(2) < radius.square()).any(1, keepdim=True).float()
    return _cut(inside + 0.5 * torch.randn(inside.shape, generator=g), inside)


@cache
def _photographs() -> Tensor:
    """Patches of two photographs, in turn, [N, 3, 12, 12], in 0 to 1."""
    g = torch.Generator().manual_seed(13)
    images = [torch.tensor(image, dtype=torch.float32).div(255) for image in datasets.load_sample_images().images]
    top = torch.randint(400, (1600, 2), generator=g)
    patches = [images[i % 2][a : a + 24, b : b + 24].permute(2, 0, 1) for i, (a, b) in enumerate(top.tolist())]
    return F.avg_pool2d(torch.stack(patches), 2)


@cache
def photographs() -> Split:
    """Tell a temple from a flower by a patch of the photograph."""
    return _cut(_photographs().sub(0.4).div(0.25), torch.arange(1600) % 2)


@cache
def noisy() -> Split:
    """Grey patches with much noise, and without it, both [N, 1, 12, 12]."""
    clean = _photographs().mean(1, keepdim=True).sub(0.4).div(0.25)
    return _cut(clean + 0.7 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(14)), clean)


@cache
def canvas(size: int = 12) -> Split:
    """Digits anywhere on a larger canvas, [N, 1, size, size]."""
    g = torch.Generator().manual_seed(15)

    def move(x: Tensor) -> Tensor:
        y = torch.full((len(x), 1, size, size), -1.0)
        for i, (a, b) in enumerate(torch.randint(size - 7, (len(x), 2), generator=g).tolist()):
            y[i, :, a : a + 8, b : b + 8] = x[i]
        return y

    return data.changed(data.digits("image"), move)
