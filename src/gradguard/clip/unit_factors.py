"""A factor for each unit of each weight, from the norms of its gradient and of the weight itself.

The norms of single units are taken tensor by tensor; all else is done on all units at once.

Shape legend: U = units of all parameters together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from gradguard.clip.factors import AbstractFactors
from gradguard.clip.units import Units, in_groups, norms_of_units, over_shards
from gradguard.functional import Measurement, limit_factor, measure, stored_part, total_norm
from gradguard.functional.number import precise


@final
@dataclass(frozen=True, eq=False)
class UnitMeasurement(Measurement):
    """Gradients whose norms were taken unit by unit.

    Attributes:
        unit_norms: of each parameter that has units and a gradient, by position; they broadcast against the gradient.
    """

    unit_norms: Mapping[int, Tensor] = field(default_factory=dict)


def measure_units(
    params: Sequence[Tensor], names: Sequence[str], units: Sequence[Units | None], measurement: Measurement | None
) -> UnitMeasurement:
    """Measure gradients unit by unit; those of parameters without units, or in another order than 2, as a whole.

    Args:
        params: n parameters.
        names: their names.
        units: of each of them; None for one without.
        measurement: of the same gradients, where there is one: nothing is measured twice.

    Host sync: none. Mutates: nothing.
    """
    scale = None if measurement is None else measurement.scale
    known = [(i, p.grad, at) for i, (p, at) in enumerate(zip(params, units, strict=True)) if at is not None]
    there = [(i, grad, at) for i, grad, at in known if grad is not None]
    found = norms_of_units([grad for _, grad, _ in there], [at for _, _, at in there])
    each = {i: one if scale is None else one / scale.to(one) for (i, _, _), one in zip(there, found, strict=True)}
    if measurement is None:
        rest = [i for i in range(len(params)) if i not in each]
        measurement = measure([params[i] for i in rest], safe=True)
        totals = dict(zip(each, _norms_of(each, params, units), strict=True))
        totals |= dict(zip(rest, measurement.norms.unbind(), strict=True))
        like = next((t for t in totals.values() if t.dtype is torch.float64), measurement.norms)
        device = params[0].grad.device if params[0].grad is not None else params[0].device
        norms = torch.stack([totals[i].to(device, like.dtype, non_blocking=True) for i in range(len(params))])
        missing = tuple(i for i, p in enumerate(params) if p.grad is None)
        return UnitMeasurement(tuple(names), tuple(params), norms, missing, None, 2.0, each)
    of = measurement
    return UnitMeasurement(of.names, of.params, of.norms, of.missing, of.scale, of.norm_type, each)


def _norms_of(each: Mapping[int, Tensor], params: Sequence[Tensor], units: Sequence[Units | None]) -> list[Tensor]:
    """Norm of each whole tensor from those of its units, which may lie on several ranks; as scalars in float64."""
    flat = [precise(norms.flatten()) for norms in each.values()]
    if len({values.device for values in flat}) == 1:  # all at once
        sizes = torch.tensor([len(values) for values in flat], device="cpu")
        whose = torch.arange(len(flat), device="cpu").repeat_interleave(sizes).to(flat[0].device, non_blocking=True)
        whole = flat[0].new_zeros(len(flat)).index_add(0, whose, torch.cat(flat).square()).sqrt().unbind()
    else:
        whole = tuple(torch.linalg.vector_norm(values) for values in flat)
    pairs = zip(each, whole, strict=True)
    return [over_shards(norm, params[i], at, inside=True) for i, norm in pairs if (at := units[i]) is not None]


@final
class UnitFactors(AbstractFactors):
    """Limits each unit's gradient to a share of the unit; parameters without units are left as they are.

    Args:
        measurement: of the gradients, unit by unit.
        units: of each parameter; None for one that is left alone.
        clipping: the share.
        eps: the least norm a unit is taken to have.
    """

    def __init__(
        self, measurement: UnitMeasurement, units: Sequence[Units | None], clipping: float, eps: float
    ) -> None:
        each = measurement.unit_norms
        super().__init__(measurement, math.inf)
        self._units, self._at = units, list(each)
        grads = _joined(list(each.values()), measurement.norms)
        weights = norms_of_units(
            [measurement.params[i].detach() for i in each], [at for i in each if (at := units[i]) is not None]
        )
        limits = clipping * _joined(weights, measurement.norms).clamp(min=eps)
        self._all = limit_factor(grads, limits)
        self._clipped = grads * self._all
        self._shapes = [norms.shape for norms in each.values()]
        self._sharded = any(hasattr(measurement.params[i], "placements") for i in each)
        if each:  # the norm that the gradients would have if every unit stood at its limit
            self.threshold = self._over_all(limits, ())

    def _over_all(self, values: Tensor, others: Sequence[Tensor]) -> Tensor:
        """Norm over all units, and over other norms, of which each rank has its own where they are sharded."""
        if self._sharded:
            values = torch.stack(_norms_of(self._split(values), self.measurement.params, self._units)).to(values.device)
        return total_norm(torch.cat([values, *(norm.reshape(1).to(values) for norm in others)]))

    def _split(self, values: Tensor) -> dict[int, Tensor]:
        """Give the values [U] by parameter again, in the shapes that broadcast."""
        parts = values.split([shape.numel() for shape in self._shapes])
        return {i: part.reshape(shape) for i, part, shape in zip(self._at, parts, self._shapes, strict=True)}

    def apply_(self) -> None:
        """Multiply the units; on a CPU only where one of them is to be clipped. Host sync: none."""
        factors = self._split(self._all)
        if self._all.is_cpu and factors:  # reading a number there waits for nothing
            away = torch._foreach_norm(list(self._split(1 - self._all).values()), 1)
            factors = {i: f for (i, f), d in zip(factors.items(), torch.stack(away).tolist(), strict=True) if d != 0}
        for i, factor in factors.items():
            grad, at = self.measurement.params[i].grad, self._units[i]
            if grad is None or at is None:
                continue
            there = factor.to(grad.device, non_blocking=True)
            if grad.layout is torch.sparse_coo:
                values = grad._values()
                values.mul_(there.flatten()[grad._indices()[0]].reshape(-1, *[1] * (values.ndim - 1)))
            else:
                in_groups(stored_part(grad), at).mul_(there)

    def of(self, position: int) -> Tensor:
        """Give the factors of its units, in a shape that broadcasts."""
        if position not in self._at:
            return self.measurement.norms.new_ones(())
        factor, at = self._split(self._all)[position], self._units[position]
        if at is None or at.groups == 1:
            return factor
        inside = self.measurement.params[position].shape[0] // at.groups
        return factor.expand(-1, inside, *factor.shape[2:]).flatten(0, 1)

    def clipped_norms(self) -> Tensor:
        """Put the norms over the units at their places; those of another order are measured anew."""
        if self.measurement.norm_type != 2:
            return self._measured_anew()
        parts = _norms_of(self._split(self._clipped), self.measurement.params, self._units)
        after = dict(zip(self._at, parts, strict=True))
        norms = self.measurement.norms
        return torch.stack([after.get(i, norm).to(norms) for i, norm in enumerate(norms.unbind())])

    def clipped_total(self) -> Tensor:
        """Join the clipped units and what has none."""
        if self.measurement.norm_type != 2 or not self._at:
            return super().clipped_total()
        known = set(self._at)
        rest = [norm for i, norm in enumerate(self.measurement.norms.unbind()) if i not in known]
        return self._over_all(self._clipped, rest).to(self.measurement.norms)

    def changed(self) -> Tensor:
        """Say whether one unit was clipped; on shards, whether one was that this rank holds a part of."""
        return torch.ne(self._all, 1).any()


def _joined(parts: Sequence[Tensor], like: Tensor) -> Tensor:
    if not parts:
        return like.new_zeros(0)
    wide = any(part.dtype is torch.float64 for part in parts)
    dtype = torch.float64 if wide else torch.float32
    return torch.cat([part.flatten().to(like.device, dtype, non_blocking=True) for part in parts])
