"""One pass over an optimizer's gradients, taken once per step and shared by whoever wants to know."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from gradguard.functional.finite import first_non_finite
from gradguard.functional.norms import norms as norms_of
from gradguard.functional.norms import total_norm

FEW = 512  # norms on a CPU, of which Python has the total before a tensor operation has begun


@dataclass(frozen=True, eq=False)
class Measurement:
    """The gradients of one optimizer at one step, in numbers that still lie on the device.

    Attributes:
        names: of all n parameters, in the optimizer's order.
        params: the parameters themselves.
        norms: shape [n]; gradient norm of each parameter, unscaled; 0 where it has no gradient.
        missing: positions of the parameters that have no gradient.
        scale: the loss scale by which the gradients were found multiplied (a scalar tensor), or None.
        norm_type: p of the norms.
    """

    names: tuple[str, ...]
    params: tuple[Tensor, ...]
    norms: Tensor
    missing: tuple[int, ...]
    scale: Tensor | None
    norm_type: float

    @cached_property
    def total(self) -> Tensor:
        """Norm of all gradients together, a scalar on the device. Host sync: none."""
        if self.norms.is_cpu and self.norm_type == 2 and len(self.norms) <= FEW:
            total = math.hypot(*self.norms.tolist())
            return torch.tensor(total, dtype=self.norms.dtype, device="cpu")
        return total_norm(self.norms, self.norm_type)

    @cached_property
    def finite(self) -> Tensor:
        """Whether every norm is finite, a bool scalar on the device. Host sync: none.

        False also for a finite gradient whose float32 square overflows: ``measure(exact=True)`` tells them apart.
        """
        return self.norms.isfinite().all()

    @property
    def empty(self) -> bool:
        """Whether no parameter has a gradient: there is nothing to observe. Host sync: none."""
        return len(self.missing) == len(self.params)

    def of_order(self, norm_type: float) -> Measurement:
        """Give the same gradients in norms of another order, measured anew where it is another one. Host sync: none."""
        if norm_type == self.norm_type:
            return self
        return measure(self.params, names=self.names, norm_type=norm_type, scale=self.scale, safe=True)

    def part(self, positions: Sequence[int], index: Tensor) -> Measurement:
        """Give some of the parameters as a measurement of their own. Host sync: none.

        Args:
            positions: which ones.
            index: the same as int64 on the device of ``norms``.
        """
        absent = set(self.missing)
        return replace(
            self,
            names=tuple(self.names[i] for i in positions),
            params=tuple(self.params[i] for i in positions),
            norms=self.norms[index],
            missing=tuple(row for row, i in enumerate(positions) if i in absent),
        )

    def first_non_finite(self) -> str | None:
        """Name the first parameter whose gradient norm is NaN or Inf. Host sync: one."""
        return first_non_finite(self.names, self.norms)


@torch.no_grad()
def measure(
    params: Sequence[Tensor],
    *,
    names: Sequence[str] | None = None,
    norm_type: float = 2.0,
    scale: Tensor | None = None,
    exact: bool = False,
    safe: bool = False,
) -> Measurement:
    """Measure the gradients of ``params`` as they are now: after ``backward()``, before ``optimizer.step()``.

    Args:
        params: n distinct parameters; those without a gradient count as zero and are listed as missing.
        names: one name each; their positions by default.
        norm_type: p > 0, or ``inf``.
        scale: loss scale that the gradients still carry; the norms are divided by it.
        exact: see :func:`gradguard.functional.norms.norms`.
        safe: be right also for finite gradients whose float32 square overflows, without a transfer to the host: on a
            CPU, measure exactly where the total is not finite; elsewhere accumulate in float64. Whoever multiplies
            gradients by what was measured needs it.

    Returns:
        A measurement whose tensors lie on the first gradient's device (the first parameter's, where there is none).

    Raises:
        ValueError: the number of names is not that of the parameters, or ``norm_type`` is not positive.

    Host sync: none. Mutates: nothing.

    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([3.0, 4.0])
    >>> measure([weight], names=["weight"]).total
    tensor(5.)
    """
    if names is not None and len(names) != len(params):
        raise ValueError(f"measure needs one name for each of {len(params)} parameters, got {len(names)}.")
    grads = [p.grad for p in params]
    present = [g for g in grads if g is not None]
    on_host = not present or present[0].is_cpu
    values = norms_of(present, norm_type, exact=exact, wide=safe and not on_host)
    missing: tuple[int, ...] = ()
    if len(present) < len(grads):
        missing = tuple(i for i, g in enumerate(grads) if g is None)
        values = _spread(values, grads) if present else _no_norms(params)
    if scale is not None:
        values = values / scale.to(device=values.device, dtype=values.dtype, non_blocking=True)
    result = Measurement(
        tuple(names) if names is not None else tuple(map(str, range(len(params)))),
        tuple(params),
        values,
        missing,
        scale,
        norm_type,
    )
    # Reading a CPU tensor waits for nothing; norms of shards are alike on all ranks, so that all take the same way.
    if safe and values.is_cpu and not exact and not math.isfinite(result.total):
        return measure(params, names=names, norm_type=norm_type, scale=scale, exact=True)
    return result


def _no_norms(params: Sequence[Tensor]) -> Tensor:
    return torch.zeros(len(params), dtype=torch.float32, device=params[0].device)


def _spread(values: Tensor, grads: Sequence[Tensor | None]) -> Tensor:
    """Put the norms of the gradients that exist at their places, zero at the others."""
    zero, rest = values.new_zeros(()), iter(values.unbind())
    return torch.stack([zero if g is None else next(rest) for g in grads])
