"""A layer norm that is taken one step at a time, and whose gain and shift get their gradients from all steps at once.

Shape legend: N = rows of all steps, b = rows of a step, S = width of what is normed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradguard.nn.order import Order

_back = torch.ops.aten.native_layer_norm_backward.default


class StepNorm:
    """The forward pass: norms steps in the order in which they come, and keeps what the backward pass wants.

    Args:
        gain: [S].
        shift: [S], or None.
        eps: added to the variance.
        dtype: of what is normed.
    """

    def __init__(self, gain: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype) -> None:
        self.gain, self.shift, self.eps = gain.to(dtype), None if shift is None else shift.to(dtype), eps
        self.shape = list(gain.shape)
        self.means: list[Tensor] = []
        self.scales: list[Tensor] = []

    def __call__(self, raw_bS: Tensor) -> Tensor:
        """Norm the rows of the next step."""
        normed, mean, scale = torch.native_layer_norm(raw_bS, self.shape, self.gain, self.shift, self.eps)
        self.means.append(mean)
        self.scales.append(scale)
        return normed

    def stats(self, order: Order) -> list[Tensor]:
        """Mean and reciprocal deviation of all rows in the order of time, [N, 1] each."""
        none = self.gain.new_empty(0, 1)
        return [torch.cat([none, *(s[::-1] if order.reverse else s)]) for s in (self.means, self.scales)]


class StepNormBack:
    """The backward pass.

    Args:
        raw: what was normed, [N, S].
        stats: mean and reciprocal deviation, [N, 1] each.
        gain: [S].
        shift: [S], or None.
        order: which rows belong to which step.
    """

    def __init__(self, raw: Tensor, stats: Sequence[Tensor], gain: Tensor, shift: Tensor | None, order: Order) -> None:
        self.raw, self.stats = raw, stats
        self.gain, self.shift = gain.to(raw.dtype), None if shift is None else shift.to(raw.dtype)
        self.shape = list(gain.shape)
        self.parts = list(zip(*map(order.parts, (raw, *stats)), strict=True))

    def __call__(self, step: int, d_normed: Tensor) -> Tensor:
        """Gradient of what a step normed."""
        raw, mean, scale = self.parts[step]
        found: Tensor = _back(d_normed, raw, self.shape, mean, scale, self.gain, self.shift, [True, False, False])[0]
        return found

    def all_steps(self, d_NS: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of all that was normed, of the gain, and of the shift."""
        mask = [True, True, self.shift is not None]
        of_raw, of_gain, of_shift = _back(d_NS, self.raw, self.shape, *self.stats, self.gain, self.shift, mask)
        return of_raw, of_gain, of_shift
