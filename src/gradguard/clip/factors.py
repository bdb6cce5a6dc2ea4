"""What a clipper decides about the gradients of one step, and how that is carried out.

Shape legend: n = number of parameters of the measurement.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

from gradguard.functional import Measurement, norms, scale_, total_norm
from gradguard.functional.number import Number, precise, tensor_like


class AbstractFactors(ABC):
    """Positive factors for the gradients of one measurement.

    Attributes:
        measurement: of the gradients that are meant.
    """

    def __init__(self, measurement: Measurement, threshold: Number) -> None:
        self.measurement, self._threshold = measurement, threshold

    @property
    def threshold(self) -> Number:
        """Norm beyond which the gradients are clipped at this step, a float or a scalar; Inf: none yet."""
        return self._threshold

    @abstractmethod
    def apply_(self) -> None:
        """Multiply the gradients in place; those that are missing stay missing. Host sync: none."""

    @abstractmethod
    def of(self, position: int) -> Tensor:
        """Give what the gradient at ``position`` is multiplied by: it broadcasts against the gradient. Host sync: none.

        Only before :meth:`apply_`.
        """

    @abstractmethod
    def clipped_norms(self) -> Tensor:
        """Norm of each gradient once multiplied, [n]. Host sync: none. Only after :meth:`apply_`."""

    @abstractmethod
    def changed(self) -> Tensor:
        """Whether any gradient was changed, a bool scalar. Host sync: none. Only after :meth:`apply_`."""

    def clipped_total(self) -> Tensor:
        """Norm of all gradients together once multiplied, a scalar. Host sync: none. Only after :meth:`apply_`."""
        return total_norm(self.clipped_norms(), self.measurement.norm_type)

    def coefficient(self) -> Tensor:
        """Total norm after over total norm before, a scalar; 1 where either is no number. Only after :meth:`apply_`."""
        before, after = self.measurement.total, self.clipped_total()
        ratio = after / before
        return torch.where(ratio.isfinite(), ratio, 1.0)

    def report(self, changes: Number = 0.0) -> Tensor | list[float]:
        """Give total norm after, coefficient, threshold, whether anything changed, and ``changes``, as one vector.

        As a list where they are on the host. Only after :meth:`apply_`. Host sync: none.
        """
        numbers = (self.clipped_total(), self.coefficient(), self.threshold, self.changed(), changes)
        return torch.stack([tensor_like(number, self.measurement.total) for number in numbers])

    def _measured_anew(self) -> Tensor:
        """Norm of each gradient as it is now, [n]."""
        of = self.measurement
        if of.empty:
            return of.norms
        found = norms(self._gradients(), of.norm_type).to(of.norms)
        found = found if of.scale is None else found / of.scale.to(found)
        if not of.missing:
            return found
        rest, zero = iter(found.unbind()), found.new_zeros(())
        return torch.stack([zero if p.grad is None else next(rest) for p in of.params])

    def _gradients(self) -> list[Tensor]:
        return [p.grad for p in self.measurement.params if p.grad is not None]


@final
class OneFactor(AbstractFactors):
    """The same factor for all gradients: their direction stays as it is."""

    def __init__(self, measurement: Measurement, factor: Number, threshold: Number) -> None:
        super().__init__(measurement, threshold)
        self.factor = factor

    def apply_(self) -> None:
        """Multiply all of them."""
        scale_(self._gradients(), self.factor)

    def of(self, position: int) -> Tensor:
        """Give the one factor."""
        return self.coefficient()

    def clipped_norms(self) -> Tensor:
        """Multiply the norms."""
        return torch.mul(self.measurement.norms, self.factor)

    def clipped_total(self) -> Tensor:
        """Multiply the total."""
        total: Tensor = torch.mul(self.measurement.total, self.factor)
        return total

    def report(self, changes: Number = 0.0) -> Tensor | list[float]:
        """Give the numbers, with no operation on a CPU."""
        if isinstance(self.factor, float) and self.measurement.total.is_cpu:
            total, factor = self.measurement.total.item(), self.factor
            return [total * factor, factor, float(self.threshold), float(factor != 1), float(changes)]
        return super().report(changes)

    def changed(self) -> Tensor:
        """Say whether the factor is not 1."""
        return torch.ne(self.coefficient(), 1)

    def coefficient(self) -> Tensor:
        """Give the one factor, in float64 where it was made in that."""
        return tensor_like(self.factor, precise(self.measurement.total))


@final
class FactorEach(AbstractFactors):
    """A factor of its own for each gradient: ``factors`` has shape [n]."""

    def __init__(self, measurement: Measurement, factors: Tensor, thresholds: Tensor) -> None:
        super().__init__(measurement, total_norm(thresholds, measurement.norm_type))
        self.factors = factors

    def apply_(self) -> None:
        """Multiply each."""
        factors = self.factors
        if self.measurement.missing:
            params = self.measurement.params
            there = [i for i, p in enumerate(params) if p.grad is not None]
            factors = torch.stack([factors[i] for i in there]) if there else factors[:0]
        scale_(self._gradients(), factors)

    def of(self, position: int) -> Tensor:
        """Give the one for this gradient."""
        return self.factors[position]

    def clipped_norms(self) -> Tensor:
        """Multiply each norm."""
        return self.measurement.norms * self.factors

    def changed(self) -> Tensor:
        """Say whether one of them is not 1."""
        return (self.factors != 1).any()
