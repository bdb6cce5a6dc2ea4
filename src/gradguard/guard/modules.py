"""The sampled steps of a block by module: what a dashboard shows, where a curve for each parameter would be too many.

Shape legend: S = sampled steps, N = parameters, M = modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.detect import Block
from gradguard.record.keys import RESERVED


class Sampled(NamedTuple):
    """What was measured at the sampled steps.

    Attributes:
        steps: int64, [S].
        names: of the M modules (or parameters), as ``named_modules`` spells them.
        grad_norms: [S, M], norm of a module's own gradients, of the guard's order.
        weight_norms: [S, M], 2-norm of its own parameters before the step.
        update_ratios: [S, M], norm of their change over that; NaN where it is unknown.
    """

    steps: Tensor
    names: tuple[str, ...]
    grad_norms: Tensor
    weight_norms: Tensor
    update_ratios: Tensor


def by_parameter(block: Block) -> Sampled:
    """Give the samples as they are; steps that a loss scaler skipped are left out."""
    samples = block.samples
    rows = torch.searchsorted(block.steps, samples.steps)
    kept = ~block.overflow[rows]
    names = _free(block.layout.names, "param")
    return Sampled(
        samples.steps[kept],
        names,
        block.grad_norms[rows[kept]],
        samples.weight_norms[kept],
        samples.update_ratios[kept],
    )


def by_module(block: Block) -> Sampled:
    """Join the parameters that a module owns itself, those of its children left out."""
    steps, _, grads, weights, ratios = by_parameter(block)
    layers = {layer: i for i, layer in enumerate(dict.fromkeys(block.layout.layers))}
    of = torch.tensor([layers[layer] for layer in block.layout.layers], dtype=torch.int64)
    known = ratios.isfinite()
    moved, were = (torch.where(known, x, 0.0) for x in (ratios * weights, weights))
    moved, were = _joined(moved, of, len(layers), 2.0), _joined(were, of, len(layers), 2.0)
    return Sampled(
        steps,
        _free([layer or "_root_" for layer in layers], "module"),
        _joined(grads, of, len(layers), block.layout.norm_type),
        _joined(weights, of, len(layers), 2.0),
        torch.where(were > 0, moved / were, torch.nan),
    )


def _joined(norms: Tensor, of: Tensor, n: int, p: float) -> Tensor:
    """Norm of each module from those of its parameters, [S, N] -> [S, M]."""
    nothing = norms.new_zeros(len(norms), n)
    largest = nothing.scatter_reduce(1, of.expand(len(norms), -1), norms, "amax")
    if math.isinf(p):
        return largest
    factor = torch.where(largest.isfinite() & (largest > 0), largest, 1.0)  # factored out of the powers
    return factor * nothing.index_add(1, of, (norms / factor[:, of]) ** p) ** (1 / p)


def _free(names: Sequence[str], kind: str) -> tuple[str, ...]:
    """Keep a module that is called ``mean`` apart from the mean of the gradient norms, and from ``module.mean``."""
    taken, free = RESERVED.union(names), []
    for name in names:
        spelled = f"{kind}.{name}" if name in RESERVED else name
        while spelled != name and spelled in taken:
            spelled = f"{kind}.{spelled}"
        free.append(spelled)
    return tuple(free)
