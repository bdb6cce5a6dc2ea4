"""Clipping the entries of the gradients one by one."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from gradguard.arguments import number
from gradguard.clip.base import AbstractClipper
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors
from gradguard.functional import Measurement, stored_part
from gradguard.functional.number import precise


@final
class ValueClip(AbstractClipper):
    r"""Brings each entry of the gradients into an interval around 0.

    .. math:: g_j \leftarrow \min(\max(g_j, l), h)

    A complex entry is brought to modulus h with its phase kept. Where one gradient of a step is not finite, all are
    left as they are: an Inf is not taken for a large number.

    Not as a default: it turns the direction of the gradient. It is for losses whose single outliers are known.

    Args:
        low: l < 0; ``-high`` where a gradient is complex.
        high: h > 0.

    Raises:
        ValueError: an argument out of range; a complex parameter and bounds that differ, once it is bound.

    Source: Mikolov 2012, "Statistical language models based on neural networks", section 3.2.2.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> weight = torch.nn.Parameter(torch.zeros(3))
    >>> weight.grad = torch.tensor([-3.0, 0.5, 4.0])
    >>> _ = ValueClip(-1.0, 1.0).clip_([weight])
    >>> weight.grad
    tensor([-1.0000,  0.5000,  1.0000])
    """

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = number("ValueClip", "low", low), number("ValueClip", "high", high)
        if not low < 0 < high:
            raise ValueError(
                f"ValueClip needs low < 0 < high, got {low!r} and {high!r}: other bounds would turn gradients around."
            )

    def bind(self, binding: Binding) -> Any:
        """Nothing is learnt."""
        if self.low != -self.high:
            turned = [name for name, p in zip(binding.names, binding.params, strict=True) if p.is_complex()]
            if turned:
                raise ValueError(
                    f"ValueClip clips a complex gradient by its modulus and needs low = -high for {turned[0]}, got "
                    f"{self.low} and {self.high}."
                )
        return ()

    def rule(self, measurement: Measurement, state: Any) -> tuple[AbstractFactors, Any]:
        """Clamp each entry."""
        return Clamp(measurement, self.low, self.high), state


@final
class Clamp(AbstractFactors):
    """Each entry is brought into [low, high]; all are left as they are where one of any gradient is not finite."""

    def __init__(self, measurement: Measurement, low: float, high: float) -> None:
        super().__init__(measurement, high)
        self._low, self._high = self._bound(low), self._bound(high)
        self._after: Tensor | None = None

    def _bound(self, bound: float) -> Tensor:
        """Give a bound on the device: infinite where the gradients are not finite, scaled where they are."""
        finite, scale = self.measurement.finite, self.measurement.scale
        whole = precise(finite.new_full((), bound, dtype=torch.float32))
        whole = torch.where(finite, whole.fill_(bound), math.inf * bound)
        return whole if scale is None else whole * scale.to(whole)

    def apply_(self) -> None:
        """Clamp; a sparse gradient that has several values for one entry is replaced by its coalesced twin."""
        for param in self.measurement.params:
            if param.grad is not None:
                if param.grad.layout is torch.sparse_coo and not param.grad.is_coalesced():
                    param.grad = param.grad.coalesce()
                _clamp_(_entries(param.grad), self._low, self._high)

    def of(self, position: int) -> Tensor:
        """Give the factor of each entry; 1 for a zero."""
        grad = self.measurement.params[position].grad
        assert grad is not None
        before = _entries(grad.coalesce() if grad.layout is torch.sparse_coo else grad)
        after = before.clone()
        _clamp_(after, self._low, self._high)
        return torch.where((after == before) | ~before.isfinite(), 1.0, after.abs() / before.abs())

    def clipped_norms(self) -> Tensor:
        """Measure anew."""
        if self._after is None:
            self._after = self._measured_anew()
        return self._after

    def changed(self) -> Tensor:
        """Say whether a norm became smaller."""
        return (self.clipped_norms() < self.measurement.norms * (1 - 1e-7)).any()


def _entries(grad: Any) -> Tensor:
    if any(placement.is_partial() for placement in getattr(grad, "placements", ())):
        raise ValueError("ValueClip needs gradients that are summed up, got a DTensor with a Partial placement.")
    return stored_part(grad)


def _clamp_(entries: Tensor, low: Tensor, high: Tensor) -> None:
    if entries.is_complex():
        size, limit = entries.abs(), high.to(entries.device, non_blocking=True)
        entries.mul_(torch.where(size > limit, limit / size, 1.0))
    elif low.is_cpu and entries.is_cpu:  # reading them waits for nothing
        most = torch.finfo(entries.dtype).max  # a bound beyond it, as under a loss scale, bounds nothing
        lowest, highest = (math.copysign(math.inf, x) if abs(x) > most else x for x in (low.item(), high.item()))
        entries.clamp_(lowest, highest)
    else:
        entries.clamp_(*(bound.to(entries.device, entries.dtype, non_blocking=True) for bound in (low, high)))
