"""The gradient as a profile over depth: how many powers of ten it moves from the first layer to the last.

Shape legend: R = steps, L = layers, N = parameters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.detect.block import Block, Layout, Role


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


def repeated(layers: Sequence[str], at_least: int) -> tuple[tuple[int, ...], ...]:
    """Places of the layers whose names differ by numbers alone, where these are not all there are.

    >>> repeated(["stem", "blocks.0.fc", "blocks.0.out", "blocks.1.fc", "blocks.1.out"], 2)
    ((1, 3), (2, 4))
    """
    of: dict[str, list[int]] = {}
    for i, layer in enumerate(layers):
        of.setdefault(re.sub(r"\d+", "*", layer), []).append(i)
    return tuple(tuple(places) for places in of.values() if at_least <= len(places) < len(layers))


def profile(block: Block, role: Role) -> Tensor:
    """Mean size of the gradient entries of each layer's parameters of ``role``, [R, L].

    The root mean square for norms of order 2, the power mean of that order for others, the largest for ``inf``.
    Missing gradients are left out; NaN where all of a layer are missing.
    """
    layers = {layer: i for i, layer in enumerate(layers_of(block.layout, role))}
    columns = [i for i, r in enumerate(block.layout.roles) if r is role]
    of_column = torch.tensor([layers[block.layout.layers[i]] for i in columns], dtype=torch.int64)
    sizes = torch.tensor([block.layout.sizes[i] for i in columns], dtype=torch.float64)
    norms, p = block.grad_norms[:, columns], block.layout.norm_type
    there = (~block.missing[:, columns]).double()
    nothing = there.new_zeros(len(there), len(layers))
    entries = nothing.index_add(1, of_column, there * sizes)
    if math.isinf(p):
        largest = nothing.scatter_reduce(1, of_column.expand(len(norms), -1), there * norms, "amax")
        return torch.where(entries > 0, largest, torch.nan)
    largest = norms.amax(1, keepdim=True).clamp(min=torch.finfo(norms.dtype).tiny)  # factored out of the powers
    return largest * (nothing.index_add(1, of_column, there * (norms / largest) ** p) / entries) ** (1 / p)


def trend(sizes: Tensor, min_layers: int = 2) -> Trend:
    """Least-squares line through ``log10`` of each step's profile, over the layers that have a gradient.

    Args:
        sizes: [R, L], >= 0; NaN and zero entries are left out, and the others stand at equal distances.
        min_layers: fewer than this many left are not fitted, >= 2.

    Returns:
        Rise over the layers that are left, and its fit; NaN where they are too few.
    """
    there = sizes > 0
    n = there.sum(1, keepdim=True)
    logs = torch.where(there, sizes, 1.0).log10()
    depth = (there.cumsum(1) - 1).to(sizes.dtype) / (n - 1)
    weight = there.to(sizes.dtype)
    dx = depth - (weight * depth).sum(1, keepdim=True) / n
    dy = logs - (weight * logs).sum(1, keepdim=True) / n
    sxx, sxy, syy = ((weight * a * b).sum(1) for a, b in ((dx, dx), (dx, dy), (dy, dy)))
    r2 = torch.where(syy > 0, sxy.square() / (sxx * syy), 0.0)
    enough = n[:, 0] >= min_layers
    return Trend(torch.where(enough, sxy / sxx, torch.nan), torch.where(enough, r2, torch.nan))
