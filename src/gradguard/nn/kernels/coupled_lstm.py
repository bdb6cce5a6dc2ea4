"""The LSTM with coupled gates in ATen calls, with the backward pass by hand.

As in the LSTM, but with c = g + f (c_before - g):

    dL/dz_f = dL/dc * (c_before - g) f (1 - f)
    dL/dz_g = dL/dc * (1 - f) (1 - g^2)             dL/dc_before = dL/dc * f

Shape legend: n = rows of a chunk, b = rows of a step, H = hidden, G = 3 * H (gates f, g, o).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.gates import Factors, ForwardStep
from gradguard.nn.kernels.lstm import AbstractEagerPlainLSTM


@final
class EagerCoupledLSTM(AbstractEagerPlainLSTM):
    """See the head of this file."""

    blocks = 3

    def cell(self, own: ForwardStep, c_before: Tensor, c: Tensor) -> None:
        """Write c from the open gates."""
        torch.lerp(own.g, c_before, own.f, out=c)

    def factors(self, gates_nG: Tensor, tanh_nH: Tensor, c_before_nH: Tensor) -> Factors:
        """Compute by what the gradients of some steps are multiplied."""
        gates = gates_nG.unflatten(1, (3, tanh_nH.shape[1]))
        factors = torch.addcmul(gates, gates, gates, value=-1)
        f, g, o = gates.unbind(1)
        of_f, of_g, of_o = factors.unbind(1)
        of_f.mul_(c_before_nH - g)
        torch.mul(1 - f, 1 - g * g, out=of_g)
        of_o.mul_(tanh_nH)
        return Factors(factors[:, :2], f, of_o, torch.addcmul(o, o, tanh_nH * tanh_nH, value=-1))
