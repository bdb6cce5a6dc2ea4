"""What a backward pass lets one see on its way: how large the gradients are that pass each step.

Shape legend: N = rows of all steps, n = rows of a chunk, S = width of a state, G = gates, H = hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.order import Chunk


@final
class Witness:
    """Norms, row by row, of the total gradients of the states, and of the sums that go into the gates.

    Attributes:
        states: [N] for each state: of h as it leaves the layer, of c as the gates make it, before zoneout.
        gates: [G, N], in the order of the recurrence's gates; none where they were not asked for.
    """

    def __init__(self, rows: int, widths: Sequence[int], gates: int, like: Tensor) -> None:
        self.widths = widths
        self.states = [like.new_zeros(rows) for _ in widths]
        self.gates = like.new_zeros(gates, rows)
        self._passed: list[Tensor] = []
        self._parts: list[tuple[Tensor, ...]] = []

    def begin(self, chunk: Chunk, rows: int) -> None:
        """Make room for a chunk of so many rows."""
        if not self._passed or len(self._passed[0]) != rows:
            self._passed = [self.gates.new_empty(rows, width) for width in self.widths]
        self._parts = list(zip(*map(chunk.order.parts, self._passed), strict=True))

    def pass_by(self, number: int, state: int, d: Tensor) -> None:
        """Look at the total gradient of a state after a step of the chunk, [b, S]."""
        self._parts[number][state].copy_(d)

    def end(self, chunk: Chunk, sums_nGH: Tensor) -> None:
        """End a chunk: take the norms, those of the gates' sums as well."""
        for norms, passed in zip(self.states, self._passed, strict=True):
            torch.linalg.vector_norm(passed, dim=1, out=norms[chunk.rows])
        if len(self.gates):
            self.gates[:, chunk.rows] = torch.linalg.vector_norm(sums_nGH, dim=2).t()
