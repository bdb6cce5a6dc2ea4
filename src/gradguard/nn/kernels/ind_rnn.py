"""The IndRNN in ATen calls, with the backward pass by hand.

With z the sum that goes in, dL/dh = dL/dz * u, entry by entry: there is no product in the loops.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, B = batch, H = hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.eager import Before, Steps
from gradguard.nn.kernels.rnn import AbstractEagerRNN, RNNBack
from gradguard.nn.order import Chunk


@final
class EagerIndRNN(AbstractEagerRNN):
    """See the head of this file."""

    def start(self) -> Steps:
        """Take the product with x, and the bias."""
        params = self.layer.params
        self.z_NH, bias = (self.layer.x @ params["weight_ih"].t()).to(self.wide), params.get("bias_ih")
        self.u = params["weight_hh"].to(self.wide)
        return self.layer.order.parts(self.z_NH if bias is None else self.z_NH.add_(bias))

    def step(self, own: Tensor, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step."""
        own.addcmul_(h, self.u)
        self.activate(own, new[0])

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute the derivatives, and those of the way back to h."""
        drop, u = self.layer.noise.drop_h, self.layer.params["weight_hh"].to(self.wide)
        self.of_h = u if drop is None else drop * u
        return super().start_back(kept, fresh, before, chunk)

    def step_back(self, number: int, own: RNNBack, d: Sequence[Tensor]) -> None:
        """Take a step back."""
        d_h, of_h = d[0], self.of_h
        torch.mul(own.factor, d_h, out=own.d_z)
        torch.mul(own.d_z, of_h if of_h.dim() == 1 else of_h[: len(d_h)], out=d_h)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        self.of_weight("weight_ih", self.d_nH, self.layer.x[chunk.rows])
        self.of_bias("bias_ih", self.d_nH)
        self.of_input(self.d_nH, self.layer.params["weight_ih"], chunk)
        self.of_bias("weight_hh", self.d_nH.mul_(before.h))
