"""Arithmetic that is the same for a number on the host and for a tensor on a device.

A statistic of one number a step takes some sixty operations. As tensors they cost more than the norm of a small model's
gradients. A CPU tensor can be read for nothing, and floats cost nothing; on any other device, where a read would wait,
the same formulas run on tensors.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import torch
from torch import Tensor

Number: TypeAlias = Any  # float | Tensor, and bool | Tensor: what an expression of both gives can't be told by its type


def scalar(value: Tensor) -> Number:
    """Give a tensor of one number as a float where it lies on the CPU; else in float64, in float32 on MPS.

    Host sync: none.

    >>> scalar(torch.tensor(0.5))
    0.5
    """
    return value.item() if value.is_cpu else precise(value)


def precise(numbers: Tensor) -> Tensor:
    """Give numbers in float64, so that a long-running mean does not drift; in float32 on MPS. Host sync: none."""
    return numbers.to(torch.float32 if numbers.device.type == "mps" else torch.float64)


def tensor_like(value: Number, like: Tensor) -> Tensor:
    """Give a number as a tensor with dtype and device of another one, without a copy from the host. Host sync: none."""
    return value.to(like) if isinstance(value, Tensor) else torch.full_like(like, value)


def as_tensor(value: Number) -> Tensor:
    """Give a float as a tensor on the CPU, in float64; a tensor as it is. Host sync: none."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device="cpu")


def where(condition: Number, a: Number, b: Number) -> Number:
    """``a`` where the condition holds, else ``b``.

    >>> where(True, 1.0, 2.0), where(torch.tensor([True, False]), 1.0, 2.0)
    (1.0, tensor([1., 2.]))
    """
    return torch.where(condition, a, b) if isinstance(condition, Tensor) else a if condition else b


def is_finite(x: Number) -> Number:
    """Whether it is neither NaN nor Inf."""
    return x.isfinite() if isinstance(x, Tensor) else math.isfinite(x)


def square(x: Number) -> Number:
    """x^2; Inf where that is too large."""
    return x * x


def sqrt(x: Number) -> Number:
    """Root of a number >= 0."""
    return x.sqrt() if isinstance(x, Tensor) else math.sqrt(x)


def divide(a: Number, b: Number) -> Number:
    """A / b, where b may be 0: Inf, or NaN for 0 / 0.

    >>> divide(1.0, 0.0), divide(0.0, 0.0)
    (inf, nan)
    """
    if isinstance(b, Tensor) and b.is_floating_point() and not isinstance(a, Tensor):
        return torch.full_like(b, a) / b  # torch makes a * (1 / b) of a float over a tensor: Inf, where b is subnormal
    if isinstance(a, Tensor) or isinstance(b, Tensor) or b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a)


def clamp(x: Number, low: float = -math.inf, high: float = math.inf) -> Number:
    """Bring it into [low, high]; NaN stays NaN.

    >>> clamp(3.0, 0.0, 1.0), clamp(torch.tensor(3.0), 0.0, 1.0)
    (1.0, tensor(1.))
    """
    if isinstance(x, Tensor):
        return x.clamp(low, high)
    return low if x < low else high if x > high else x


def larger(x: Number, y: Number) -> Number:
    """The larger one of two."""
    return torch.maximum(x, y) if isinstance(x, Tensor) else max(x, y)


def smaller(x: Number, y: Number) -> Number:
    """The smaller one of two."""
    return torch.minimum(x, y) if isinstance(x, Tensor) else min(x, y)
