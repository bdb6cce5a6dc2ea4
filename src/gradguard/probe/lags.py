"""How far each row of a sequence is from the place where the loss touches the sequence last.

Shape legend: N = rows of all steps, B = batch, T = time, L = lags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Steps(Protocol):
    """As much as is needed of :class:`gradguard.nn.order.Order`."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Rows of each step."""

    @property
    def batch(self) -> int:
        """Number of sequences."""

    @property
    def reverse(self) -> bool:
        """Whether the last step comes first."""


class Lags(NamedTuple):
    """Where the rows of a layer stand.

    Attributes:
        steps: T.
        time: [N], step of the sequence that a row belongs to.
        lag: [N], steps from there to the sequence's end, in the direction of the layer; below 0 beyond it. The end is
            the last step at which the loss, or the layer above, touches the sequence.
        is_end: [N], whether the row is one.
        outside: [], share of the squared gradient from outside that comes before the ends.
        lengths: [B], steps from the start to the end.
    """

    steps: int
    time: Tensor
    lag: Tensor
    is_end: Tensor
    outside: Tensor
    lengths: Tensor

    def by_time(self, norms_KN: Tensor) -> Tensor:
        """Norm over all sequences at each step, [K, T], of several at once."""
        return self._sum(norms_KN, self.time).sqrt()

    def by_lag(self, norms_N: Tensor) -> Tensor:
        """Root mean square over the sequences that are long enough for a lag, [T]; 0 where none is."""
        there = self.lag >= 0
        sums = self._sum(torch.where(there, norms_N, 0.0).unsqueeze(0), self.lag.clamp(min=0))
        return (sums[0] / self.counts().clamp(min=1)).sqrt()

    def counts(self) -> Tensor:
        """How many sequences are long enough for each lag, [T]."""
        return self.lag.new_zeros(self.steps + 1).index_add(0, self.lag.clamp(min=-1) + 1, torch.ones_like(self.lag))[
            1:
        ]

    def _sum(self, norms_KN: Tensor, of: Tensor) -> Tensor:
        precise = torch.float32 if norms_KN.device.type == "mps" else torch.float64
        squares = norms_KN.to(precise).square_()
        return squares.new_zeros(len(squares), self.steps).index_add_(1, of, squares)


def lags_of(
    order: Steps,
    of_sequences: Sequence[Tensor | None],
    of_finals: Sequence[Tensor | None],
    device: torch.device,
    *,
    turned: bool = False,
) -> Lags:
    """Find where the rows of a layer stand, from the gradients that come to it from outside.

    Args:
        order: which rows belong to which step.
        of_sequences: gradients of the states at every step, [N, S].
        of_finals: of those after the last step, [B, S].
        device: of the rows.
        turned: whether each sequence lies turned round.

    Host sync: none. Mutates: nothing.
    """
    sizes, steps = torch.tensor(order.sizes, dtype=torch.int64, device="cpu"), len(order.sizes)
    time = torch.repeat_interleave(torch.arange(steps, device="cpu"), sizes)
    which = torch.arange(len(time), device="cpu") - (sizes.cumsum(0) - sizes)[time]
    lengths = torch.bincount(which, minlength=order.batch)
    left = lengths[which] - 1 - time
    running, time = left if order.reverse else time, left if turned else time
    lasts = (running == lengths[which] - 1).nonzero().flatten()  # a row for each sequence that has steps
    time, which, running, lasts = (t.to(device, non_blocking=True) for t in (time, which, running, lasts))
    squares = _squares(of_sequences, len(which), device)
    squares = squares.index_add(0, lasts, _squares(of_finals, order.batch, device)[which[lasts]])
    touched = torch.where(squares > 0, running, -1)
    ends = touched.new_full((order.batch,), -1).scatter_reduce(0, which, touched, "amax")
    lag = ends[which] - running
    outside = torch.where(lag > 0, squares, 0.0).sum() / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny)
    return Lags(steps, time, lag, lag == 0, outside, ends + 1)


def _squares(gradients: Sequence[Tensor | None], rows: int, device: torch.device) -> Tensor:
    """Squared norms of some rows of gradients."""
    precise = torch.float32 if device.type == "mps" else torch.float64
    found = torch.zeros(rows, dtype=precise, device=device)
    for gradient in gradients:
        if gradient is not None:
            found = found + torch.linalg.vector_norm(gradient, dim=1, dtype=precise).square()
    return found
