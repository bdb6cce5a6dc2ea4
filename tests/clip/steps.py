"""Gradients of whole runs, and a clipper at work on them step by step, that the tests of clippers share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradguard.clip import AbstractFactors, AbstractRescaler, Binding
from gradguard.functional import Measurement, measure

SHAPES = {"first.weight": (3, 4), "first.bias": (3,), "last.weight": (2, 3)}


def parameters(
    shapes: Mapping[str, Sequence[int]] = SHAPES, *, dtype: torch.dtype = torch.float64, device: str = "cpu"
) -> dict[str, nn.Parameter]:
    generator = torch.Generator().manual_seed(7)
    whole = {
        name: torch.randn(tuple(shape), generator=generator, dtype=torch.float64) for name, shape in shapes.items()
    }
    return {name: nn.Parameter(values.to(device, dtype)) for name, values in whole.items()}


def totals(n: int, seed: int, *, spread: float = 0.3) -> np.ndarray:
    """Total norms of a steady run, lognormal around 1."""
    return np.exp(spread * np.random.default_rng(seed).normal(size=n))


def spiky(n: int, seed: int) -> list[list[np.ndarray]]:
    """Gradients of a run whose norms vary, with spikes of all gradients and of single ones, up to a thousandfold."""
    rng = np.random.default_rng(seed)
    run = []
    for _ in range(n):
        grads = [0.2 * rng.normal(size=shape) * np.exp(0.3 * rng.normal()) for shape in SHAPES.values()]
        if rng.random() < 0.08:
            hit = rng.random(len(grads)) < 0.6
            grads = [g * 10 ** rng.uniform(0.5, 3) if bad else g for g, bad in zip(grads, hit, strict=True)]
        run.append(grads)
    return run


class Run:
    """A clipper on parameters of its own, by the functions that leave it as it is."""

    def __init__(
        self,
        clipper: AbstractRescaler,
        params: Mapping[str, nn.Parameter] | None = None,
        owners: Sequence[nn.Module | None] | None = None,
    ) -> None:
        self.clipper, self.params = clipper, dict(params or parameters())
        owned = tuple(owners or [None] * len(self.params))
        self.binding = Binding(tuple(self.params), tuple(self.params.values()), owned)
        self.state = clipper.bind(self.binding)

    def give(self, grads: Sequence[Any]) -> None:
        for param, grad in zip(self.params.values(), grads, strict=True):
            if isinstance(grad, Tensor):  # of a dtype and layout of its own
                param.grad = grad.clone()
            else:
                param.grad = None if grad is None else torch.tensor(grad, dtype=param.dtype)

    def measured(self, **options: Any) -> Measurement:
        return measure(self.binding.params, names=self.binding.names, safe=True, **options)

    def step(self, grads: Sequence[Any], **options: Any) -> AbstractFactors:
        self.give(grads)
        factors, self.state = self.clipper.coefficients(self.measured(**options), self.state)
        factors.apply_()
        return factors

    @property
    def grads(self) -> list[Tensor]:
        return [p.grad for p in self.params.values() if p.grad is not None]

    @property
    def changes(self) -> float:
        return float(self.clipper.changes(self.state))


def reported(factors: AbstractFactors, changes: float = 0.0) -> Tensor:
    """Give what factors report, [1 + parts, 5], whether it is a list or a tensor."""
    report = factors.report(changes)
    return (report if isinstance(report, Tensor) else torch.tensor(report, dtype=torch.float64)).reshape(-1, 5)


class Totals:
    """A clipper on one parameter with one entry: norm in, norm out."""

    def __init__(self, clipper: AbstractRescaler) -> None:
        self.run = Run(clipper, {"weight": nn.Parameter(torch.zeros(1, dtype=torch.float64))})

    def step(self, norm: float) -> float:
        self.run.step([[norm]])
        return self.run.grads[0].item()

    @property
    def changes(self) -> float:
        return self.run.changes
