"""Numbers that tell what a matrix does to what goes through it."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def singular_values(block: Tensor) -> tuple[float, float]:
    """Smallest and largest; NaN of what is not finite."""
    if not block.numel() or not bool(block.isfinite().all()):
        return math.nan, math.nan
    values = torch.linalg.svdvals(block.double())
    return values.min().item(), values.max().item()


def condition(block: Tensor) -> float:
    """Largest singular value over the smallest; Inf where that is 0."""
    least, most = singular_values(block)
    return math.inf if least == 0 else most / least


def radius(block: Tensor) -> float:
    """Largest absolute eigenvalue; NaN of what is not finite."""
    if not bool(block.isfinite().all()):
        return math.nan
    return float(torch.linalg.eigvals(block.double()).abs().max())


def deviation(block: Tensor) -> float:
    """Standard deviation of all entries."""
    return float(block.double().std(correction=0))
