"""The plain recurrent network in ATen calls, with the backward pass by hand.

With z the sum that goes in, dL/dz = dL/dh * (1 - h^2) for tanh, and dL/dh where h > 0 for ReLU: h itself says it, where
it is not rounded to half precision, in which a tanh of 0.999 is 1 and has no derivative.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, H = hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Layer, Outcome
from gradguard.nn.kernels.eager import AbstractEager, Before, Steps
from gradguard.nn.kernels.products import add_product, bias_sum
from gradguard.nn.order import Chunk


class RNNBack(NamedTuple):
    """What a step back reads and writes, [b, H] each."""

    factor: Tensor  # of dL/dh, for dL/dz
    d_z: Tensor  # written


class AbstractEagerRNN(AbstractEager):
    """What a cell does whose new h is a nonlinearity of one sum."""

    blocks = 1
    z_NH: Tensor  # the sums, which :meth:`start` makes

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.is_tanh = vars(layer.recurrence)["nonlinearity"] == "tanh"
        self.is_rounded = layer.x.dtype != self.wide

    def activate(self, z: Tensor, out: Tensor) -> None:
        """Write the nonlinearity of a sum; of one that is rounded, over the sum, too."""
        if self.is_rounded:
            out.copy_(z.tanh_() if self.is_tanh else z.clamp_(min=0))
        elif self.is_tanh:
            torch.tanh(z, out=out)
        else:
            torch.clamp(z, min=0, out=out)

    def kept(self) -> list[Tensor]:
        """Nothing beside h, unless that is rounded."""
        return [self.z_NH] if self.is_rounded else []

    def like_kept(self) -> list[Tensor]:
        """The same."""
        x, h = self.layer.x, self.layer.states[0]
        return [x.new_empty(x.shape[0], h.shape[1], dtype=self.wide)] if self.is_rounded else []

    def gates(self, outcome: Outcome) -> Tensor:
        """The new state itself, before zoneout."""
        is_saved = self.is_rounded or self.layer.noise.zones[0] is not None
        return (outcome.saved[0] if is_saved else outcome.sequences[0]).unsqueeze(1)

    def sums_back(self) -> Tensor:
        """That of the one sum."""
        return self.d_nH.unsqueeze(1)

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute the derivatives of the nonlinearity."""
        h = kept[0] if self.is_rounded else fresh[0]
        factor = 1 - h * h if self.is_tanh else (h > 0).to(self.wide)
        self.d_nH = torch.empty_like(h)
        return map(RNNBack, *map(chunk.order.parts, (factor, self.d_nH)))


@final
class EagerRNN(AbstractEagerRNN):
    """See the head of this file."""

    def start(self) -> Steps:
        """Take the product with x, and the biases."""
        params, bias = self.layer.params, bias_sum(self.layer.params, self.wide)
        self.z_NH = (self.layer.x @ params["weight_ih"].t()).to(self.wide)
        self.weight_t = params["weight_hh"].t()
        return self.layer.order.parts(self.z_NH if bias is None else self.z_NH.add_(bias))

    def recalled(self, h_NH: Tensor) -> Outcome:
        """What a forward pass leaves, from the h that it gave; of rounded h, as they were before that."""
        (h0,), order, out = self.layer.states, self.layer.order, torch.empty_like(h_NH)
        self.start()
        add_product(self.z_NH, order.rows_before(h_NH, h0), self.weight_t)
        self.activate(self.z_NH, out)
        return Outcome([out], self.kept())

    def step(self, own: Tensor, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step."""
        add_product(own, h, self.weight_t)
        self.activate(own, new[0])

    def step_back(self, number: int, own: RNNBack, d: Sequence[Tensor]) -> None:
        """Take a step back."""
        torch.mul(own.factor, d[0], out=own.d_z)
        self.through_h(d[0], own.d_z, self.layer.params["weight_hh"])

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        self.of_weight("weight_ih", self.d_nH, self.layer.x[chunk.rows])
        self.of_weight("weight_hh", self.d_nH, before.h)
        self.of_bias("bias_ih", self.d_nH)
        self.of_bias("bias_hh", self.d_nH)
        self.of_input(self.d_nH, self.layer.params["weight_ih"], chunk)
