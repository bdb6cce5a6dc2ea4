"""A norm that is taken one step at a time, and whose gain and shift get their gradients from all steps at once.

Shape legend: N = rows of all steps, b = rows of a step, S = width of what is normed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradguard.nn.kernels.norms import AbstractNorm
from gradguard.nn.order import Order


class StepNorm:
    """The forward pass: norms steps in the order in which they come, and keeps what the backward pass wants.

    Args:
        norm: what to take.
    """

    def __init__(self, norm: AbstractNorm) -> None:
        self.norm, self.seen = norm, list[Sequence[Tensor]]()

    def __call__(self, raw_bS: Tensor) -> Tensor:
        """Norm the rows of the next step."""
        normed, *statistics = self.norm(raw_bS)
        self.seen.append(statistics)
        return normed

    def add_to(self, out_bS: Tensor, raw_bS: Tensor) -> None:
        """Norm the rows of the next step, and add them to ``out``."""
        self.seen.append(self.norm.add_to(out_bS, raw_bS))

    def statistics(self, order: Order) -> list[Tensor]:
        """Those of all rows in the order of time, [N, ...] each."""
        in_time, none = self.seen[::-1] if order.reverse else self.seen, self.norm.like_statistics(0)
        return [torch.cat([empty, *(each[i] for each in in_time)]) for i, empty in enumerate(none)]


class StepNormBack:
    """The backward pass.

    Args:
        norm: what was taken.
        raw: what was normed, [N, S].
        statistics: of its rows.
        order: which rows belong to which step.
    """

    def __init__(self, norm: AbstractNorm, raw: Tensor, statistics: Sequence[Tensor], order: Order) -> None:
        self.norm, self.prepared = norm, norm.prepared(raw, statistics)
        self.parts = list(zip(*map(order.parts, self.prepared), strict=True))

    def __call__(self, step: int, d_normed: Tensor) -> Tensor:
        """Gradient of what a step normed."""
        return self.norm.back(d_normed, *self.parts[step])

    def all_steps(self, d_NS: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of all that was normed, of the gain, and of the shift."""
        return self.norm.back_to_all(d_NS, *self.prepared)
