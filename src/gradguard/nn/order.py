"""Which rows of a sequence belong to which step, and in which order the steps come.

A sequence of T steps of a batch lies as N rows, all of the first step, then all of the second: N = T * B, or fewer
where sequences end early. The rows of a step are sorted by length, longest first, so that a step's sequences are the
first ones of the step before: torch's packed form.

Shape legend: T = time, B = batch, N = rows of all steps, S = width of a state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor


class Order(NamedTuple):
    """The steps of one layer in one direction.

    Attributes:
        sizes: rows of each step in the order of time; never growing.
        batch: number of sequences, B.
        reverse: whether the last step comes first.
    """

    sizes: tuple[int, ...]
    batch: int
    reverse: bool = False

    @property
    def even(self) -> bool:
        """Whether all sequences are equally long."""
        return not self.sizes or self.sizes[-1] == self.batch

    def in_time(self, sequence_NS: Tensor) -> tuple[Tensor, ...]:
        """Views of the rows of each step, in the order of time."""
        if not self.sizes:
            return ()
        parts: tuple[Tensor, ...] = sequence_NS.split(self.batch if self.even and self.batch else self.sizes)
        return parts

    def parts(self, sequence_NS: Tensor) -> tuple[Tensor, ...]:
        """Views of the rows of each step, in the order in which the steps come."""
        parts = self.in_time(sequence_NS)
        return parts[::-1] if self.reverse else parts

    def chunks(self, rows: int) -> Iterator[Chunk]:
        """Give neighbouring steps that have that many rows, or one step with more, from the last to the first."""
        sizes = self.sizes[::-1] if self.reverse else self.sizes
        end, stop = len(sizes), 0 if self.reverse else sum(sizes)
        while end:
            start, total = end - 1, sizes[end - 1]
            while start and total + sizes[start - 1] <= rows:
                start -= 1
                total += sizes[start]
            own = sizes[start:end][:: -1 if self.reverse else 1]
            low = stop if self.reverse else stop - total
            yield Chunk(range(start, end), slice(low, low + total), Order(own, own[0], self.reverse))
            end, stop = start, low + total if self.reverse else low

    def before(self, sequence_NS: Tensor, initial_BS: Tensor) -> list[Tensor]:
        """The state that each step starts from, in the order in which the steps come; views where that can be."""
        lasts = [initial_BS, *self.parts(sequence_NS)[:-1]] if self.sizes else []
        if self.even:
            return lasts
        sizes = self.sizes[::-1] if self.reverse else self.sizes
        return [resized(last, size, initial_BS) for last, size in zip(lasts, sizes, strict=True)]

    def rows_before(self, sequence_NS: Tensor, initial_BS: Tensor) -> Tensor:
        """The same as rows, in the order of the sequence, [N, S]."""
        before = self.before(sequence_NS, initial_BS)
        return torch.cat(before[:: -1 if self.reverse else 1]) if before else sequence_NS

    def finals(self, sequence_NS: Tensor, initial_BS: Tensor) -> Tensor:
        """Copy the state after the last step of each sequence, [B, S]."""
        if not self.sizes:
            return initial_BS.clone()
        parts = self.parts(sequence_NS)
        if self.even or self.reverse:
            return parts[-1].clone()
        ended = [part[len(after) :] for part, after in zip(parts, (*parts[1:], parts[0][:0]), strict=True)]
        return torch.cat(ended[::-1])


class Chunk(NamedTuple):
    """Some neighbouring steps.

    Attributes:
        steps: their numbers, in the order in which the steps come.
        rows: which rows they have.
        order: of these rows.
    """

    steps: range
    rows: slice
    order: Order


def resized(state: Tensor, rows: int, initial: Tensor) -> Tensor:
    """The first ``rows`` sequences of a state; those that start only now from their initial state."""
    if rows == len(state):
        return state
    return state[:rows] if rows < len(state) else torch.cat([state, initial[len(state) : rows]])


def order_of(rows: int, batch: int, batch_sizes: Tensor | None, *, reverse: bool) -> Order:
    """Order N rows: equally long sequences, or those of a packed sequence's batch sizes."""
    if batch_sizes is None:
        return Order((batch,) * (rows // batch if batch else 0), batch, reverse)
    sizes = tuple(batch_sizes.tolist())
    if sum(sizes) != rows:
        raise ValueError(f"A PackedSequence needs a row of data for each step: {sum(sizes)}, got {rows}.")
    return Order(sizes, batch, reverse)
