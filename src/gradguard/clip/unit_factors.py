"""A factor for each unit of a weight, from the norms of its gradient and of the weight itself.

Shape legend: U = number of units, V = rows of a sparse gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.clip.factors import AbstractFactors
from gradguard.clip.units import Units, in_groups, local_unit_norms, norm_over_units
from gradguard.functional import Measurement, limit_factor, stored_part, total_norm


@final
class UnitFactors(AbstractFactors):
    """Limits each unit's gradient to a share of the unit; parameters without units are left as they are.

    Args:
        measurement: of the gradients.
        units: of each parameter; None for one that is left alone.
        clipping: the share.
        eps: the least norm a unit is taken to have.
    """

    def __init__(self, measurement: Measurement, units: Sequence[Units | None], clipping: float, eps: float) -> None:
        self._units = units
        self._factors: dict[int, Tensor] = {}
        self._changes: dict[int, Tensor] = {}
        self._after: dict[int, Tensor] = {}
        limits = []
        for i, (param, at) in enumerate(zip(measurement.params, units, strict=True)):
            if param.grad is None or at is None:
                continue
            norms = _gradient_norms(param.grad, at)
            norms = norms if measurement.scale is None else norms / measurement.scale.to(norms)
            limit = clipping * local_unit_norms(param.detach(), at).to(norms.dtype).clamp(min=eps)
            factor = limit_factor(norms, limit)
            self._factors[i], self._changes[i] = factor, (factor != 1).any()
            self._after[i] = norm_over_units(norms * factor, param, at)
            limits.append(norm_over_units(limit, param, at))
        super().__init__(measurement, total_norm(_stacked(limits, measurement.total)) if limits else math.inf)

    def apply_(self) -> None:
        """Multiply the units; on a CPU only where one of them is to be clipped. Host sync: none."""
        for i, factor in self._factors.items():
            grad, at, change = self.measurement.params[i].grad, self._units[i], self._changes[i]
            if grad is None or at is None or (change.is_cpu and not change):
                continue
            if grad.layout is torch.sparse_coo:
                values = grad._values()
                values.mul_(factor.flatten()[grad._indices()[0]].reshape(-1, *[1] * (values.ndim - 1)))
            else:
                in_groups(stored_part(grad), at).mul_(factor)

    def of(self, position: int) -> Tensor:
        """Give the factors of its units, in a shape that broadcasts."""
        if position not in self._factors:
            return self.measurement.norms.new_ones(())
        factor, at = self._factors[position], self._units[position]
        if at is None or at.groups == 1:
            return factor
        return factor.expand(-1, self.measurement.params[position].shape[0] // at.groups, *factor.shape[2:]).flatten(
            0, 1
        )

    def clipped_norms(self) -> Tensor:
        """Put the norms over the units at their places; those of another order are measured anew."""
        if self.measurement.norm_type != 2:
            return self._measured_anew()
        norms = self.measurement.norms
        each = [self._after[i].to(norms) if i in self._after else norm for i, norm in enumerate(norms.unbind())]
        return torch.stack(each)

    def changed(self) -> Tensor:
        """Say whether one unit was clipped; on shards, whether one was that this rank holds a part of."""
        changes = list(self._changes.values())
        return _stacked(changes, changes[0]).any() if changes else self.measurement.finite.new_zeros(())


def _gradient_norms(grad: Tensor, at: Units) -> Tensor:
    if grad.layout is torch.strided:
        return local_unit_norms(grad, at)
    if grad.layout is not torch.sparse_coo or at.axes != (0,):
        raise ValueError(f"AGC needs dense gradients, or sparse ones in COO layout by rows, got {grad.layout}.")
    whole = grad.coalesce()
    rows = local_unit_norms(whole.values(), Units((0,))).flatten()
    powers = rows.new_zeros(grad.shape[0]).index_add(0, whole.indices()[0], rows.square())
    return powers.sqrt().reshape(-1, *[1] * (grad.ndim - 1))


def _stacked(scalars: Sequence[Tensor], like: Tensor) -> Tensor:
    return torch.stack([scalar.to(like.device, like.dtype, non_blocking=True) for scalar in scalars])
