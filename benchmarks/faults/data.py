"""Data of the programs: what comes with scikit-learn, and what is drawn here. The same at every call.

Shape legend: N = examples, T = time, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from sklearn import datasets
from torch import Tensor


class Split(NamedTuple):
    """Examples to learn from, and others to be judged by. Targets are class numbers, or float32 [N, outputs]."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def _split(x: Tensor, y: Tensor, share: float = 0.75) -> Split:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    cut = int(share * len(x))
    train, test = order[:cut], order[cut:]
    return Split(x[train], y[train], x[test], y[test])


def _drawn() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0).clamp(min=1e-6)


@cache
def digits(form: str = "flat") -> Split:
    """Handwritten digits in [-1, 1]: ``flat`` [N, 64], ``image`` [N, 1, 8, 8], ``rows`` [N, 8, 8] or ``pixels``."""
    x, y = datasets.load_digits(return_X_y=True)
    shape = {"flat": (64,), "image": (1, 8, 8), "rows": (8, 8), "pixels": (64, 1)}[form]
    return _split(torch.tensor(x, dtype=torch.float32).div(8).sub(1).reshape(-1, *shape), torch.tensor(y))


@cache
def cancer(*, scaled: bool = True) -> Split:
    """Breast cancer, [N, 30]; as it is, features reach from 0.001 to 4,000."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    return _split(_standard(x) if scaled else x, torch.tensor(y))


@cache
def wine(*, scaled: bool = True) -> Split:
    """Wine, [N, 13], three classes; as it is, features reach from 0.1 to 1,700."""
    x, y = datasets.load_wine(return_X_y=True)
    x = torch.tensor(x, dtype=torch.float32)
    return _split(_standard(x) if scaled else x, torch.tensor(y))


@cache
def diabetes() -> Split:
    """Diabetes, [N, 10], a target of mean 0 and variance 1, of which half can be explained."""
    x, y = datasets.load_diabetes(return_X_y=True)
    return _split(
        _standard(torch.tensor(x, dtype=torch.float32)), _standard(torch.tensor(y, dtype=torch.float32))[:, None]
    )


@cache
def clusters(classes: int = 10, features: int = 20, spread: float = 1.0) -> Split:
    """Gaussian clusters, [N, F]."""
    g = _drawn()
    centres = 1.5 * torch.randn(classes, features, generator=g)
    y = torch.randint(classes, (2000,), generator=g)
    return _split(centres[y] + spread * torch.randn(2000, features, generator=g), y)


@cache
def spirals(classes: int = 3) -> Split:
    """Interleaved spirals in the plane, [N, 2]."""
    g = _drawn()
    y = torch.randint(classes, (2000,), generator=g)
    radius = torch.rand(2000, generator=g)
    angle = 4 * radius + 2 * math.pi * y / classes + 0.1 * torch.randn(2000, generator=g)
    return _split(2 * torch.stack([radius * angle.cos(), radius * angle.sin()], 1), y)


@cache
def waves(features: int = 6) -> Split:
    """A smooth function of some features, [N, F] to [N, 1], with a little noise."""
    g = _drawn()
    x = 2 * torch.rand(2000, features, generator=g) - 1
    y = (2 * x[:, 0]).sin() + x[:, 1] * x[:, 2] + 0.5 * x[:, 3].abs() + 0.05 * torch.randn(2000, generator=g)
    return _split(x, _standard(y)[:, None])


@cache
def noise(classes: int = 5) -> Split:
    """Labels that two features in ten decide, and of which four in ten are drawn at random: the loss rests high."""
    g = _drawn()
    x = torch.randn(2000, 10, generator=g)
    y = (classes * torch.special.ndtr((x[:, 0] + x[:, 1]) / math.sqrt(2))).long().clamp(max=classes - 1)
    split = _split(x, y)
    wrong = torch.rand(len(split.y), generator=g) < 0.4
    return split._replace(y=torch.where(wrong, torch.randint(classes, split.y.shape, generator=g), split.y))


def changed(split: Split, change: Callable[[Tensor], Tensor]) -> Split:
    """Change all inputs alike."""
    return split._replace(x=change(split.x), x_test=change(split.x_test))
