"""The gradient as a profile over depth: how many powers of ten it moves from the first layer to the last.

Shape legend: R = steps, L = layers, N = parameters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.detect.block import Block, Layout, Role

# Nothing below this share of the largest layer is told apart: it stands for "no gradient at all" in the fit.
FLOOR = 1e-30


class Trend(NamedTuple):
    """Straight line through log10 of a profile.

    Attributes:
        decades: rise from the first layer to the last, in powers of ten, [R]; NaN where it can't be fitted.
        r2: share of the profile's variance that the line explains, [R].
    """

    decades: Tensor
    r2: Tensor


def layer_columns(layout: Layout, role: Role) -> dict[str, list[int]]:
    """Columns of ``role`` by layer, layers in the order of the model."""
    columns: dict[str, list[int]] = {}
    for i, (layer, found) in enumerate(zip(layout.layers, layout.roles, strict=True)):
        if found is role:
            columns.setdefault(layer, []).append(i)
    return columns


def profile(block: Block, columns: dict[str, list[int]]) -> Tensor:
    """Root mean square of each layer's gradient entries, [R, L]; NaN where all its gradients are missing."""
    sizes = torch.tensor(block.layout.sizes, dtype=torch.float64)
    squares = block.grad_norms.square()
    rms = []
    for members in columns.values():
        there = (~block.missing[:, members]).to(squares.dtype)
        entries = (there * sizes[members]).sum(1)
        rms.append(((there * squares[:, members]).sum(1) / entries).sqrt())
    return torch.stack(rms, dim=1) if rms else squares.new_zeros(len(squares), 0)


def trend(rms: Tensor) -> Trend:
    """Least-squares line through ``log10`` of each step's profile, over the layers that have a gradient.

    Args:
        rms: [R, L], >= 0; NaN entries are left out, a zero counts as ``FLOOR`` of the step's largest entry.

    Returns:
        Rise over all layers and its fit; NaN where fewer than two layers are left, or none has a gradient.
    """
    there = rms.isfinite()
    largest = torch.where(there, rms, 0.0).amax(1, keepdim=True) if rms.shape[1] else rms.new_zeros(len(rms), 1)
    logs = torch.where(there, rms.clamp(min=FLOOR * largest), 1.0).log10()
    weight = (there & (largest > 0)).to(rms.dtype)
    depth = torch.linspace(0, 1, rms.shape[1], dtype=rms.dtype).expand_as(rms)
    n = weight.sum(1, keepdim=True)
    dx = depth - (weight * depth).sum(1, keepdim=True) / n
    dy = logs - (weight * logs).sum(1, keepdim=True) / n
    sxx, sxy, syy = ((weight * a * b).sum(1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    return Trend(sxy / sxx, torch.where(syy > 0, sxy.square() / (sxx * syy), 0.0))
