"""The LSTM with peepholes in ATen calls, with the backward pass by hand.

As in the LSTM, with p_i * c_before and p_f * c_before in the sums of i and f, and p_o * c in that of o:

    dL/dc gains dL/dm * tanh(c) * o (1 - o) * p_o
    dL/dc_before = dL/dc * (f + g * i (1 - i) * p_i + c_before * f (1 - f) * p_f)

Both are known beforehand, so that a step back costs what it costs without peepholes.

Shape legend: n = rows of a chunk, b = rows of a step, H = hidden, P = width of h, G = 4 * H (gates i, f, g, o).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.eager import Before, Steps
from gradguard.nn.kernels.gates import Factors, ForwardStep, gradient_factors
from gradguard.nn.kernels.lstm import AbstractEagerPlainLSTM
from gradguard.nn.order import Chunk


@final
class EagerPeepholeLSTM(AbstractEagerPlainLSTM):
    """See the head of this file."""

    def peepholes(self) -> Tensor:
        """Those of i, f and o, [3, H]."""
        weight = self.layer.params["weight_c"].to(self.wide)
        return weight.view(3, self.layer.states[1].shape[1])

    def start(self) -> Steps:
        """Take the products with x."""
        steps, peepholes = super().start(), self.peepholes()
        self.of_i_f, self.of_o = peepholes[:2], peepholes[2]
        self.i_f_parts = self.layer.order.parts(self.gates_NG.unflatten(1, (4, peepholes.shape[1]))[:, :2])
        return steps

    def step(self, own: ForwardStep, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step: i and f see the c before."""
        self.i_f_parts[own.number].addcmul_(self.of_i_f, old[1].unsqueeze(1))
        super().step(own, h, old, new)

    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Let o see c."""
        own.o.addcmul_(self.of_o, c_bH)
        super().leave(own, c_bH)

    def begin_back(self, kept: list[Tensor], fresh: list[Tensor], chunk: Chunk) -> None:
        """Take up the cells that o saw."""
        self.c_nH = fresh[1]

    def factors(self, gates_nG: Tensor, tanh_nH: Tensor, c_before_nH: Tensor) -> Factors:
        """Add what comes back through the peepholes."""
        cell, f, out, through = gradient_factors(gates_nG, tanh_nH, c_before_nH)
        of_i, of_f, of_o = self.peepholes()
        before = torch.addcmul(f, cell[:, 0], of_i).addcmul_(cell[:, 1], of_f)
        return Factors(cell, before, out, through.addcmul_(out, of_o))

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        super().finish_back(before, chunk)
        if "weight_c" in self.d_params:
            d_i, d_f, _, d_o = self.d_nG.chunk(4, dim=1)
            seen = (d_i, before.states[1]), (d_f, before.states[1]), (d_o, self.c_nH)
            self.d_params["weight_c"] += torch.cat([(d * c).sum(0) for d, c in seen])
