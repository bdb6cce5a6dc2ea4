"""Lines through the gradient over depth: through all layers, and through those at the same place of repeated blocks.

Shape legend: R = steps, L = layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.detect.activations import Activations
from gradguard.detect.block import Block, Role
from gradguard.detect.profile import Trend, layers_of, profile, repeated, trend
from gradguard.detect.state import saved

ROUNDING = 1e-5  # of the gradient of the weights beside it, below which that of a bias is nothing but rounding


@saved
class Fit(NamedTuple):
    """The profile of one step, by layer.

    Attributes:
        what: of what it is.
        limit: powers of ten from which it is sick.
        sizes: by layer.
        decades: rise of the line.
        r2: its fit.
        excess: rise over the limit where the step is sick, 0 elsewhere.
    """

    what: str
    limit: float
    sizes: dict[str, float]
    decades: float
    r2: float
    excess: float


class Profiles(NamedTuple):
    """The profiles of some layers over the steps of a block, [R, L], and their lines, [R]."""

    what: str
    limit: float
    layers: tuple[str, ...]
    sizes: Tensor
    line: Trend
    excess: Tensor

    def at(self, row: int) -> Fit:
        """Give the profile of one step."""
        sizes = zip(self.layers, self.sizes[row].tolist(), strict=True)
        there = {layer: size for layer, size in sizes if not math.isnan(size)}
        return Fit(self.what, self.limit, there, *(float(values[row]) for values in (*self.line, self.excess)))


@final
class Judge:
    """Fits lines, and says how far beyond the limit they are.

    Args:
        direction: +1 where the gradient vanishes.
        min_r2: how well a line has to fit.
        min_layers: fewer are not judged.
    """

    def __init__(self, direction: int, min_r2: float, min_layers: int) -> None:
        self.direction, self.min_r2, self.min_layers = direction, min_r2, min_layers

    def of_parameters(self, block: Block, role: Role, limit: float) -> Iterator[Profiles]:
        """Judge the gradients of a role's parameters at each step of a block."""
        layers = layers_of(block.layout, role)
        if len(layers) >= self.min_layers:
            sizes = _biases(block, layers) if role is Role.BIAS else profile(block, role)
            yield from self._lines(f"mean size of each layer's {role.value} gradients", layers, sizes, limit)

    def of_outputs(self, sample: Activations, limit: float) -> Fit | None:
        """Judge the gradients by the layers' outputs, in the order of their calls; give the worst line, if any is."""
        there = [one for one in sample.signals if not one.embeds and math.isfinite(one.grad_rms)]
        sizes = torch.tensor([[one.grad_rms for one in there]], dtype=torch.float64)
        layers = tuple(one.layer for one in there)
        found = self._lines("size of the gradient by each layer's output", layers, sizes, limit)
        worst = max(found, key=lambda one: float(one.excess), default=None) if len(layers) >= self.min_layers else None
        return worst.at(0) if worst is not None and worst.excess > 0 else None

    def _lines(self, what: str, layers: Sequence[str], sizes_RL: Tensor, limit: float) -> Iterator[Profiles]:
        for places in (range(len(layers)), *repeated(layers, self.min_layers)):
            sizes = sizes_RL[:, places]
            line = trend(sizes, self.min_layers)
            times = self.direction * line.decades / limit
            excess = torch.where((times >= 1) & (line.r2 >= self.min_r2), times, 0.0)
            yield Profiles(what, limit, tuple(layers[i] for i in places), sizes, line, excess)


def _biases(block: Block, layers: Sequence[str]) -> Tensor:
    """Mean size of the gradient entries of biases, [R, L]; NaN right before a norm that takes them out again."""
    sizes, weights = profile(block, Role.BIAS), profile(block, Role.WEIGHT)
    at = {layer: i for i, layer in enumerate(layers_of(block.layout, Role.WEIGHT))}
    roles: dict[str, set[Role]] = {}
    for layer, role in zip(block.layout.layers, block.layout.roles, strict=True):
        roles.setdefault(layer, set()).add(role)
    before_norm = {layer for layer, behind in pairwise(roles) if roles[behind] == {Role.OTHER}}
    for i, layer in enumerate(layers):
        if layer in at and layer in before_norm:
            beside = weights[:, at[layer]]
            sizes[:, i] = torch.where(sizes[:, i] < ROUNDING * beside, torch.nan, sizes[:, i])
    return sizes
