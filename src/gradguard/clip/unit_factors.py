"""A factor for each unit of each weight, from the norms of its gradient and of the weight itself.

The norms of single units are taken tensor by tensor; all else is done on all units at once.

Shape legend: n = number of parameters, k = those among them that have units, U = units of all of them together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from gradguard.clip.factors import AbstractFactors
from gradguard.clip.units import Units, in_groups, norms_of_units, over_shards
from gradguard.functional import Measurement, limit_factor, measure, stored_part, total_norm
from gradguard.functional.number import Number, precise


@final
@dataclass(frozen=True, eq=False)
class AllUnits:
    """The units of several parameters in a row, as one vector [U] that can be taken apart again.

    Attributes:
        positions: of the k parameters among all n.
        params: the k parameters.
        units: where the units of each lie.
        shapes: in which the numbers of each parameter's units broadcast against its gradient.
        whose: int64, [U]; which of the k a unit belongs to.
    """

    positions: tuple[int, ...]
    params: tuple[Tensor, ...]
    units: tuple[Units, ...]
    shapes: tuple[torch.Size, ...]
    whose: Tensor

    def split(self, values: Tensor) -> list[Tensor]:
        """Give the values [U] by parameter, each in the shape that broadcasts. Host sync: none."""
        parts = values.split([shape.numel() for shape in self.shapes])
        return [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def sums(self, values: Tensor) -> Tensor:
        """Add the values [U] up by parameter, [k] in float64. Host sync: none."""
        wide = precise(values)
        return wide.new_zeros(len(self.positions)).index_add(0, self.whose, wide)

    def norms(self, values: Tensor) -> Tensor:
        """Norm of each whole parameter from the norms [U] of its units, which may lie on several ranks, [k]."""
        norms = self.sums(precise(values).square()).sqrt()
        if not any(hasattr(param, "placements") for param in self.params):
            return norms
        each = zip(norms.unbind(), self.params, self.units, strict=True)
        return torch.stack([over_shards(norm, param, at, inside=True) for norm, param, at in each])


@final
@dataclass(frozen=True, eq=False)
class UnitMeasurement(Measurement):
    """Gradients whose norms were taken unit by unit.

    Attributes:
        units: those of the parameters that have units and a gradient.
        unit_norms: norms of their gradients, [U].
    """

    units: AllUnits
    unit_norms: Tensor


def measure_units(
    params: Sequence[Tensor], names: Sequence[str], units: Sequence[Units | None], measurement: Measurement | None
) -> UnitMeasurement:
    """Measure gradients unit by unit; those of parameters without units, or in another order than 2, as a whole.

    Args:
        params: n parameters.
        names: their names.
        units: of each of them; None for one without.
        measurement: of the same gradients, where there is one: whole tensors are not measured again.

    Host sync: none. Mutates: nothing.
    """
    known = [(i, p, p.grad, at) for i, (p, at) in enumerate(zip(params, units, strict=True)) if at is not None]
    there = [(i, p, grad, at) for i, p, grad, at in known if grad is not None]
    found = norms_of_units([grad for _, _, grad, _ in there], [at for *_, at in there])
    device = (params[0] if params[0].grad is None else params[0].grad).device
    device = device if measurement is None else measurement.norms.device
    sizes = torch.tensor([norms.numel() for norms in found], dtype=torch.int64, device="cpu")
    every = AllUnits(
        tuple(i for i, *_ in there),
        tuple(p for _, p, _, _ in there),
        tuple(at for *_, at in there),
        tuple(norms.shape for norms in found),
        torch.arange(len(there), device="cpu").repeat_interleave(sizes).to(device, non_blocking=True),
    )
    values = _joined(found, device)
    if measurement is None:
        measurement = _whole(params, names, every, values)
    elif measurement.scale is not None:
        values = values / measurement.scale.to(values)
    of = measurement
    return UnitMeasurement(of.names, of.params, of.norms, of.missing, of.scale, of.norm_type, every, values)


def _whole(params: Sequence[Tensor], names: Sequence[str], every: AllUnits, values: Tensor) -> Measurement:
    """Put the norms of whole tensors together: from those of their units, and measured where there are none."""
    apart = set(every.positions)
    rest = [i for i in range(len(params)) if i not in apart]
    others = measure([params[i] for i in rest], safe=True).norms if rest else values[:0]
    wide = values.dtype is torch.float64 or others.dtype is torch.float64
    norms = torch.cat([every.norms(values).to(torch.float64 if wide else torch.float32), others.to(values.device)])
    order = torch.tensor([*every.positions, *rest], device="cpu").argsort().to(norms.device, non_blocking=True)
    missing = tuple(i for i, p in enumerate(params) if p.grad is None)
    return Measurement(tuple(names), tuple(params), norms[order], missing, None, 2.0)


def _joined(parts: Sequence[Tensor], device: torch.device) -> Tensor:
    """Give the numbers of all units as one vector, in float64 as soon as one of them is."""
    dtypes = {part.dtype for part in parts}
    if len(dtypes) == 1 and all(part.device == device for part in parts):
        return torch.cat([part.flatten() for part in parts])
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    nothing = torch.zeros(0, dtype=dtype, device=device)
    return torch.cat([nothing, *(part.flatten().to(device, dtype, non_blocking=True) for part in parts)])


@final
class UnitFactors(AbstractFactors):
    """Limits each unit's gradient to a share of the unit; parameters without units are left as they are.

    Args:
        measurement: of the gradients, unit by unit.
        clipping: the share.
        eps: the least norm a unit is taken to have.
    """

    def __init__(self, measurement: UnitMeasurement, clipping: float, eps: float) -> None:
        super().__init__(measurement, math.inf)
        every = self._every = measurement.units
        grads = measurement.unit_norms
        weights = norms_of_units([param.detach() for param in every.params], every.units)
        self._limits = clipping * _joined(weights, grads.device).clamp(min=eps)
        self._factors = limit_factor(grads, self._limits)
        self._after = every.norms(grads * self._factors)

    @property
    def threshold(self) -> Number:
        """Norm that the gradients would have if every unit stood at its limit."""
        return total_norm(self._every.norms(self._limits)) if self._every.positions else math.inf

    def apply_(self) -> None:
        """Multiply the units; on a CPU only where one of them is to be clipped. Host sync: none."""
        clipped = [True] * len(self._every.positions)
        if self._factors.is_cpu:  # reading a number there waits for nothing
            if not bool(self.changed()):
                return
            clipped = (self._every.sums(self._factors != 1) > 0).tolist()
        factors = self._every.split(self._factors)
        for factor, param, at, some in zip(factors, self._every.params, self._every.units, clipped, strict=True):
            grad = param.grad
            if grad is None or not some:
                continue
            there = factor.to(grad.device, non_blocking=True)
            if grad.layout is torch.sparse_coo:
                values = grad._values()
                values.mul_(there.flatten()[grad._indices()[0]].reshape(-1, *[1] * (values.ndim - 1)))
            else:
                in_groups(stored_part(grad), at).mul_(there)

    def of(self, position: int) -> Tensor:
        """Give the factors of its units, in a shape that broadcasts."""
        if position not in self._every.positions:
            return self.measurement.norms.new_ones(())
        row = self._every.positions.index(position)
        factor, at = self._every.split(self._factors)[row], self._every.units[row]
        if at.groups == 1:
            return factor
        inside = self._every.params[row].shape[0] // at.groups
        return factor.expand(-1, inside, *factor.shape[2:]).flatten(0, 1)

    def clipped_norms(self) -> Tensor:
        """Put the norms over the units at their places; those of another order are measured anew."""
        if self.measurement.norm_type != 2:
            return self._measured_anew()
        after = self.measurement.norms.clone()
        where = torch.tensor(self._every.positions, dtype=torch.int64, device="cpu")
        after[where.to(after.device, non_blocking=True)] = self._after.to(after)
        return after

    def changed(self) -> Tensor:
        """Say whether one unit was clipped; on shards, whether one was that this rank holds a part of."""
        return torch.ne(self._factors, 1).any()
