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


def layers_of(layout: Layout, role: Role) -> tuple[str, ...]:
    """Layers that have a parameter of ``role``, in the order of the model."""
    return tuple(dict.fromkeys(layer for layer, r in zip(layout.layers, layout.roles, strict=True) if r is role))


def profile(block: Block, role: Role) -> Tensor:
    """Root mean square of the gradient entries of each layer's parameters of ``role``, [R, L].

    Missing gradients are left out; NaN where all of a layer are missing.
    """
    layers = {layer: i for i, layer in enumerate(layers_of(block.layout, role))}
    columns = [i for i, r in enumerate(block.layout.roles) if r is role]
    of_column = torch.tensor([layers[block.layout.layers[i]] for i in columns], dtype=torch.int64)
    sizes = torch.tensor([block.layout.sizes[i] for i in columns], dtype=torch.float64)
    there = (~block.missing[:, columns]).double()
    nothing = there.new_zeros(len(there), len(layers))
    squares = nothing.index_add(1, of_column, there * block.grad_norms[:, columns].square())
    return (squares / nothing.index_add(1, of_column, there * sizes)).sqrt()


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
