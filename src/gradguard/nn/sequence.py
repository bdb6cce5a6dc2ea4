"""The forms in which a sequence comes in, and in which its states go out again.

Shape legend: T = time, B = batch, N = rows of all steps, I = input, S = width of
what comes out, L = layers times directions.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

SequenceLike = Tensor | PackedSequence


class Form(NamedTuple):
    """How a sequence came in.

    Attributes:
        steps: T; 0 for a packed sequence, whose batch sizes say it.
        batch: B; 1 for an unbatched one.
        batched: whether there is a dimension for it.
        batch_first: whether that comes first.
        packed: the packed sequence, if it was one.
    """

    steps: int
    batch: int
    batched: bool = True
    batch_first: bool = False
    packed: PackedSequence | None = None

    @property
    def batch_sizes(self) -> Tensor | None:
        """Rows of each step, on the host, of a packed sequence."""
        return None if self.packed is None else self.packed.batch_sizes

    def of_rows(self, each_BS: Tensor) -> Tensor:
        """Repeat what there is of each sequence, in the order of the rows, for all steps, [N, S]."""
        sizes = self.batch_sizes
        if sizes is None:
            return each_BS.repeat(self.steps, 1)
        rows = self.packed.data.shape[0] if self.packed is not None else 0
        starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes, output_size=rows)
        return each_BS.index_select(0, (torch.arange(rows) - starts).to(each_BS.device, non_blocking=True))

    def turning(self, rows: int, device: torch.device) -> Tensor:
        """Index, [N], that turns each sequence round within its own length, so that its last step comes first."""
        sizes, each = self.batch_sizes, torch.arange(self.batch)
        if sizes is None:
            places = torch.arange(self.steps - 1, -1, -1).unsqueeze(1) * self.batch + each
            return places.flatten().to(device, non_blocking=True)
        starts = sizes.cumsum(0) - sizes
        steps = torch.repeat_interleave(torch.arange(sizes.shape[0]), sizes, output_size=rows)
        which = torch.arange(rows) - starts[steps]
        lengths = (sizes.unsqueeze(0) > each.unsqueeze(1)).sum(1)
        return (starts[lengths[which] - 1 - steps] + which).to(device, non_blocking=True)

    def sizes_on_all_ranks(self, device: torch.device) -> Tensor:
        """Rows of each step, and no row at steps that only other processes take."""
        own = torch.full((self.steps,), self.batch) if self.batch_sizes is None else self.batch_sizes
        most = torch.tensor(own.shape[0], device=device)
        dist.all_reduce(most, dist.ReduceOp.MAX)
        return torch.cat([own, own.new_zeros(int(most) - own.shape[0])])

    def restore(self, rows_NS: Tensor) -> SequenceLike:
        """Put rows of all steps into that form."""
        if self.packed is not None:
            return PackedSequence(
                rows_NS, self.packed.batch_sizes, self.packed.sorted_indices, self.packed.unsorted_indices
            )
        if not self.batched:
            return rows_NS
        rows_TBS = rows_NS.view(self.steps, self.batch, rows_NS.shape[1])
        return rows_TBS.transpose(0, 1) if self.batch_first else rows_TBS

    def enter(self, state: Tensor) -> Tensor:
        """Bring states that a user passes, [L, B, S] or [L, S], into the order of the rows, [L, B, S]."""
        if self.packed is not None and self.packed.sorted_indices is not None:
            return state.index_select(1, self.packed.sorted_indices)
        return state if self.batched else state.unsqueeze(1)

    def leave(self, state: Tensor) -> Tensor:
        """Bring states back into the user's order."""
        if self.packed is not None and self.packed.unsorted_indices is not None:
            return state.index_select(1, self.packed.unsorted_indices)
        return state if self.batched else state.squeeze(1)


def rows_of(sequence: SequenceLike, *, batch_first: bool) -> tuple[Tensor, Form]:
    """Lay all steps' rows under one another, [N, I]; the caller has seen to it that a tensor has 2 or 3 dimensions."""
    if isinstance(sequence, PackedSequence):
        order = sequence.sorted_indices
        size = int(sequence.batch_sizes[0]) if order is None else order.shape[0]
        return sequence.data, Form(0, size, packed=sequence)
    if sequence.dim() == 2:
        return sequence, Form(sequence.shape[0], 1, batched=False)
    x_TBI = sequence.transpose(0, 1) if batch_first else sequence
    steps, batch, width = x_TBI.shape
    return x_TBI.reshape(steps * batch, width), Form(steps, batch, batch_first=batch_first)
