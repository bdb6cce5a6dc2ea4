"""Histograms of gradients without a host read.

Shape legend: n = tensors, C = bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradguard.functional.finite import entries


class Histograms(NamedTuple):
    """One histogram of each tensor, over its finite entries.

    Attributes:
        counts: float32, [n, C].
        lows: [n], smallest entry: the left edge of the first bin.
        highs: [n], largest entry: the right edge of the last bin.
        sums: [n], of the entries.
        squares: [n], sum of their squares.
    """

    counts: Tensor
    lows: Tensor
    highs: Tensor
    sums: Tensor
    squares: Tensor


@torch.no_grad()
def histograms(tensors: Sequence[Tensor], bins: int = 64) -> Histograms:
    """Count the entries of each tensor in bins of equal width between its own extremes.

    Args:
        tensors: n tensors, real or complex (counted by absolute value), dense or sparse; of a DTensor the whole is
            gathered, so that all ranks must call this together.
        bins: C >= 1.

    Returns:
        float32 on the first tensor's device. An empty tensor, or one without a finite entry, has no counts and zeros.

    Raises:
        ValueError: ``bins`` is below 1, or there is no tensor.

    Host sync: none. Mutates: nothing.

    >>> histograms([torch.tensor([0.0, 1.0, 1.0, 4.0])], bins=4).counts
    tensor([[1., 2., 0., 1.]])
    """
    if bins < 1 or not tensors:
        raise ValueError(f"histograms needs at least one tensor and bins >= 1, got {len(tensors)} and {bins}.")
    device = tensors[0].device
    each = [[part.to(device, non_blocking=True) for part in _histogram(tensor, bins)] for tensor in tensors]
    return Histograms(*(torch.stack(parts) for parts in zip(*each, strict=True)))


def _histogram(tensor: Any, bins: int) -> tuple[Tensor, ...]:
    whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    x = entries(whole).reshape(-1)
    x = (x.abs() if x.is_complex() else x).float()
    if not x.numel():
        return (x.new_zeros(bins), *x.new_zeros(4).unbind())
    finite = x.isfinite()
    low = torch.where(finite, x, torch.inf).amin()
    high = torch.where(finite, x, -torch.inf).amax()
    low, high = (torch.where(edge.isfinite(), edge, 0.0) for edge in (low, high))
    x = torch.where(finite, x, low)
    width = torch.where(high > low, high - low, 1.0)
    place = ((x - low) / width * bins).long().clamp(0, bins - 1)
    # In int32: adding 1 to a float32 that has reached 2^24 changes nothing.
    counts = torch.zeros(bins, dtype=torch.int32, device=x.device).scatter_add_(0, place, finite.int()).float()
    kept = torch.where(finite, x, 0.0)
    return counts, low, high, kept.sum(), kept.square().sum()
