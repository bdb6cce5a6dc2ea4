"""What drawn data sets are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.faults.data import Split


def drawn(seed: int) -> torch.Generator:
    """Give a generator of its own."""
    return torch.Generator().manual_seed(seed)


def cut(x: Tensor, y: Tensor) -> Split:
    """Keep the last quarter, of what was drawn independently."""
    first = 3 * len(x) // 4
    return Split(x[:first], y[:first], x[first:], y[first:])


def grid(size: int) -> tuple[Tensor, Tensor]:
    """Give how far down and across each pixel lies."""
    down, across = torch.meshgrid(torch.arange(float(size)), torch.arange(float(size)), indexing="ij")
    return down, across
