"""What can be wrong with a start: in words, and by the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from gradguard.detect.block import Block, Role
from gradguard.detect.state import saved

MEANS = {
    "alike": "all units of a layer give the same, get the same gradient and stay the same: each layer is one unit wide",
    "blind": "what comes out of the last layers hardly depends on what goes in ({size:.1e} of it does)",
    "shrinks": "the signal shrinks by a factor of {factor:.2g} per layer on its way forward",
    "grows": "the signal grows by a factor of {factor:.2g} per layer on its way forward",
    "fades": "the gradient shrinks by a factor of {factor:.2g} per layer on its way back",
    "explodes": "the gradient grows by a factor of {factor:.2g} per layer on its way back",
    "shut": "layers give nothing but zeros and get no gradient, since another one behind them begins at 0, too",
    "zero": "{size:.0f} weights are zero, and so are their gradients: each needs another one that is not",
    "faint": "the layers' outputs are as small as {size:.1e} (their median)",
    "large": "the layers' outputs are as large as {size:.2g} (their median)",
    "loud": "the outputs are {size:.2g} large, and most of the loss of {factor:.3g} comes of their size",
}
LOST = frozenset({"alike", "blind", "faint", "large", "loud", "shut", "zero"})  # not made good by what comes after


EVIDENCE = {
    "alike": "difference between units, over the output",
    "blind": "share of the output that depends on the input",
    "shrinks": "powers of ten lost on the way forward",
    "grows": "powers of ten gained on the way forward",
    "fades": "powers of ten lost on the way back",
    "explodes": "powers of ten gained on the way back",
    "shut": "layers",
    "zero": "weights",
    "faint": "median output",
    "large": "median output",
    "loud": "size of the outputs",
}


@saved
class Fault(NamedTuple):
    """What was wrong at a sample."""

    where: tuple[str, ...]
    size: float
    factor: float


def leaps(sizes: Sequence[float]) -> bool:
    """Whether three layers or more are enough to tell: from each to the next the size grows, or shrinks, tenfold."""
    steps = [math.log10(b / a) for a, b in pairwise(sizes)]
    return len(steps) >= 2 and (min(steps) >= 1 or max(steps) <= -1)


def zero_weights(block: Block, sample: int) -> Fault | None:
    """Find weights, two at least, that are 0 before a sampled step, as their gradients are."""
    row = block.steps == block.samples.steps[sample]
    shut = (block.samples.weight_norms[sample] == 0) & (block.grad_norms[row][-1] == 0)
    shut &= block.trainable & ~block.missing[row][-1]
    found = [i for i in shut.nonzero().flatten().tolist() if block.layout.roles[i] is not Role.BIAS]
    where = tuple(dict.fromkeys(block.layout.layers[i] for i in found))
    return Fault(where, float(len(found)), math.nan) if len(found) > 1 else None


def zero_layers(block: Block, step: int) -> frozenset[str]:
    """Give the layers whose weights are all 0 before a sampled step."""
    at = block.samples.steps == step
    if not at.any():
        return frozenset()
    norms: dict[str, float] = {}
    for layer, role, norm in zip(
        block.layout.layers, block.layout.roles, block.samples.weight_norms[at][-1].tolist(), strict=True
    ):
        if role is not Role.BIAS:
            norms[layer] = norms.get(layer, 0.0) + norm
    return frozenset(layer for layer, norm in norms.items() if norm == 0)
