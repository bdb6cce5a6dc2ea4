"""Slow float64 twins of the published rules, in NumPy, to be held against the papers. No torch here.

Each takes the gradients of one step, one array for each parameter, and gives them clipped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

Grads = list[np.ndarray]


def norm(*arrays: np.ndarray, p: float = 2.0) -> float:
    """p-norm over all entries of all arrays."""
    entries = [abs(complex(x)) if np.iscomplexobj(a) else abs(float(x)) for a in arrays for x in a.ravel()]
    if math.isinf(p):
        return max(entries, default=0.0)
    return math.fsum(x**p for x in entries) ** (1 / p)


def torch_clip(grads: Grads, max_norm: float, *, p: float = 2.0, eps: float = 1e-6) -> Grads:
    """Clip as ``torch.nn.utils.clip_grad_norm_`` does."""
    coefficient = min(max_norm / (norm(*grads, p=p) + eps), 1.0)
    return [coefficient * g for g in grads]


class NormClip:
    """Pascanu, Mikolov & Bengio 2013, algorithm 1, as torch has it."""

    def __init__(self, max_norm: float, *, p: float = 2.0, eps: float = 1e-6) -> None:
        self.max_norm, self.p, self.eps = max_norm, p, eps

    def step(self, grads: Grads) -> Grads:
        return torch_clip(grads, self.max_norm, p=self.p, eps=self.eps)


class ValueClip:
    """Mikolov 2012, section 3.2.2."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def step(self, grads: Grads) -> Grads:
        return [np.array([min(max(x, self.low), self.high) for x in g.ravel()]).reshape(g.shape) for g in grads]


def units(shape: tuple[int, ...], kind: str, groups: int = 1) -> Iterator[Any]:
    """Give the index of each unit of a weight: what one output is computed from."""
    if len(shape) < 2:
        yield ...
    elif kind == "transposed":  # (inputs, outputs of one group, kernel ...): each group has its own inputs
        inputs = shape[0] // groups
        for group in range(groups):
            for output in range(shape[1]):
                yield (slice(group * inputs, (group + 1) * inputs), output)
    else:  # (outputs, ...)
        yield from range(shape[0])


def agc(grad: np.ndarray, weight: np.ndarray, clipping: float, eps: float, kind: str = "rows", groups: int = 1) -> Any:
    """Clip by Brock et al. 2021, equation 3."""
    clipped = np.array(grad, dtype=np.float64)
    for unit in units(weight.shape, kind, groups):
        of_weight, of_grad = max(norm(weight[unit]), eps), norm(grad[unit])
        if of_grad / of_weight > clipping:
            clipped[unit] = clipping * of_weight / of_grad * grad[unit]
    return clipped


class AutoClip:
    """Seetharaman et al. 2020, algorithm 1: the history has all norms, this one too."""

    def __init__(self, percentile: float) -> None:
        self.percentile = percentile
        self.history: list[float] = []

    def step(self, grads: Grads) -> Grads:
        self.history.append(norm(*grads))
        return torch_clip(grads, float(np.percentile(self.history, self.percentile)))


class ZClip:
    """Kumar et al. 2025. ``target`` is one of "reciprocal", "mean", "threshold"."""

    def __init__(
        self,
        *,
        z_threshold: float = 2.5,
        alpha: float = 0.97,
        warmup: int = 25,
        target: str = "reciprocal",
        clip_factor: float = 1.0,
        max_norm: float = math.inf,
        skip_update_on_spike: bool = False,
    ) -> None:
        self.z_threshold, self.alpha, self.warmup, self.target = z_threshold, alpha, warmup, target
        self.clip_factor, self.max_norm, self.skip_update_on_spike = clip_factor, max_norm, skip_update_on_spike
        self.buffer: list[float] = []
        self.mean = self.var = math.nan

    def step(self, grads: Grads) -> Grads:
        h = norm(*grads)
        if len(self.buffer) < self.warmup:
            self.buffer.append(h)
            self.mean = math.fsum(self.buffer) / len(self.buffer)
            self.var = math.fsum((x - self.mean) ** 2 for x in self.buffer) / len(self.buffer)
            return self.limited(grads, h, self.max_norm)
        sigma = math.sqrt(self.var)
        z = (h - self.mean) / (sigma + 1e-6)
        wanted = h
        if z > self.z_threshold:
            wanted = (
                self.clip_factor
                * {
                    "reciprocal": self.mean + self.z_threshold**2 / z * sigma,
                    "mean": self.mean,
                    "threshold": self.mean + self.z_threshold * sigma,
                }[self.target]
            )
        if not (z > self.z_threshold and self.skip_update_on_spike):
            self.mean = self.alpha * self.mean + (1 - self.alpha) * wanted
            self.var = self.alpha * self.var + (1 - self.alpha) * (wanted - self.mean) ** 2
        return self.limited(grads, h, min(wanted, self.max_norm))

    @staticmethod
    def limited(grads: Grads, h: float, limit: float) -> Grads:
        return [limit / (h + 1e-6) * g for g in grads] if h > limit else grads


class MedianMad:
    """The z-score by the median and its scaled median absolute deviation of the last raw norms."""

    def __init__(self, *, z_threshold: float, window: int, warmup: int) -> None:
        self.z_threshold, self.window, self.warmup = z_threshold, window, warmup
        self.norms: list[float] = []

    def step(self, grads: Grads) -> Grads:
        h, before, seen = norm(*grads), self.norms[-self.window :], len(self.norms)
        self.norms.append(h)
        if seen < self.warmup:
            return grads
        median = float(np.median(before))
        sigma = 1.482602218505602 * float(np.median([abs(x - median) for x in before]))
        z = (h - median) / (sigma + 1e-6)
        return ZClip.limited(grads, h, median + self.z_threshold**2 / z * sigma) if z > self.z_threshold else grads


class AdaGC:
    """Wang et al. 2025: the total norm is clipped in the warm-up, each tensor's own one after it."""

    def __init__(self, *, relative: float = 1.05, absolute: float = 1.0, beta: float = 0.98, warmup: int = 100) -> None:
        self.relative, self.absolute, self.beta, self.warmup = relative, absolute, beta, warmup
        self.steps = 0
        self.gamma: list[float] = []

    def step(self, grads: Grads) -> Grads:
        self.steps += 1
        if self.steps <= self.warmup:
            h = min(1.0, self.absolute / norm(*grads))
            clipped = [h * g for g in grads]
            norms = [norm(g) for g in clipped]
            self.gamma = [min(pair) for pair in zip(self.gamma, norms, strict=True)] if self.gamma else norms
            return clipped
        clipped = []
        for i, g in enumerate(grads):
            h = min(1.0, self.relative * self.gamma[i] / norm(g))
            clipped.append(h * g)
            self.gamma[i] = self.beta * self.gamma[i] + (1 - self.beta) * norm(h * g)
        return clipped


class GradientStabilizer:
    """arXiv 2502.17055v3, algorithm 1: both means start from 0, nothing is corrected."""

    def __init__(self, *, gamma1: float = 0.6, gamma2: float = 0.999) -> None:
        self.gamma1, self.gamma2 = gamma1, gamma2
        self.m = self.v = 0.0

    def step(self, grads: Grads) -> Grads:
        r = norm(*grads)
        self.m = self.gamma1 * self.m + (1 - self.gamma1) * r
        self.v = self.gamma2 * self.v + (1 - self.gamma2) * r**2
        return [g / r * self.m / math.sqrt(self.v) for g in grads]

    def bound(self) -> float:
        """Give what no norm exceeds, whatever the gradients are: Cauchy and Schwarz on both sums."""
        return (1 - self.gamma1) / math.sqrt(1 - self.gamma2) / math.sqrt(1 - self.gamma1**2 / self.gamma2)


class NormBand:
    """Normalised gradient descent below ``low``, clipping above ``high``."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def step(self, grads: Grads) -> Grads:
        h = norm(*grads)
        wanted = self.low if h < self.low else self.high if h > self.high else h
        return [wanted / h * g for g in grads]
