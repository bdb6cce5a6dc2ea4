"""JANET in ATen calls, with the backward pass by hand.

With s and u the two sums, f = sigmoid(s), w = 1 - sigmoid(s - beta) = sigmoid(beta - s), g = tanh(u) and
h' = f h + w g:

    dL/ds = dL/dh' * (h f (1 - f) - g w (1 - w))    dL/du = dL/dh' * w (1 - g^2)
    dL/dh = dL/dh' * f + what comes back through the products

All factors of dL/dh' are known beforehand: they are computed for many steps at once.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, H = hidden; three blocks: w, f, g.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Outcome
from gradguard.nn.kernels.eager import AbstractEager, Before, Steps
from gradguard.nn.kernels.products import add_product, in_blocks
from gradguard.nn.order import Chunk


class _Step(NamedTuple):
    """Views of what a step computes."""

    w_f: Tensor  # [b, 2H]
    f_g: Tensor  # [b, 2H]; before the step the two sums without what h gives
    w: Tensor  # [b, H]
    f: Tensor
    g: Tensor


class _Back(NamedTuple):
    """What a step back reads and writes."""

    factors: Tensor  # of dL/dh', for the gradients of the two sums, [b, 2, H]
    f: Tensor  # of dL/dh', for dL/dh
    d: Tensor  # written: these gradients, [b, 2, H]
    d_s_u: Tensor  # the same, [b, 2H]


def janet_factors(blocks_n3H: Tensor, h_before_nH: Tensor) -> Tensor:
    """Compute the factors of some steps, [n, 2, H]."""
    w, f, g = blocks_n3H.chunk(3, dim=1)
    factors = blocks_n3H.new_empty(len(w), 2, w.shape[1])
    of_s, of_u = factors.unbind(1)
    torch.addcmul(w, w, g * g, value=-1, out=of_u)
    torch.addcmul(f, f, f, value=-1, out=of_s).mul_(h_before_nH)
    of_s.sub_(torch.addcmul(w, w, w, value=-1).mul_(g))
    return factors


@final
class EagerJANET(AbstractEager):
    """See the head of this file."""

    blocks = 2

    def start(self) -> Steps:
        """Take the product with x, and the bias."""
        recurrence, x, (h0,), params, order, _ = self.layer
        width, bias = h0.shape[1], params.get("bias_ih")
        self.blocks_N3H = x.new_empty(len(x), 3 * width, dtype=self.wide)
        f_g = self.blocks_N3H[:, width:].copy_(x @ params["weight_ih"].t())
        if bias is not None:
            f_g += bias
        self.weight_t = params["weight_hh"].t()
        self.beta = x.new_full((), vars(recurrence)["beta"], dtype=self.wide)
        bounds = (0, 2), (1, 3), (0, 1), (1, 2), (2, 3)
        return map(_Step, *(order.parts(self.blocks_N3H[:, low * width : high * width]) for low, high in bounds))

    def step(self, own: _Step, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step."""
        add_product(own.f_g, h, self.weight_t)
        torch.sub(self.beta, own.f, out=own.w)
        own.w_f.sigmoid_()
        own.g.tanh_()
        if new[0].dtype == own.g.dtype:
            torch.mul(own.f, old[0], out=new[0]).addcmul_(own.w, own.g)
        else:
            new[0].copy_((own.f * old[0]).addcmul_(own.w, own.g))

    def kept(self) -> list[Tensor]:
        """The three blocks."""
        return [self.blocks_N3H]

    def like_kept(self) -> list[Tensor]:
        """The same."""
        x, h = self.layer.x, self.layer.states[0]
        return [x.new_empty(x.shape[0], 3 * h.shape[1], dtype=self.wide)]

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute all that does not depend on the gradients."""
        factors = janet_factors(kept[0], before.states[0])
        d = torch.empty_like(factors)
        self.d_n2H, width = d.flatten(1), factors.shape[2]
        views = factors, kept[0][:, width : 2 * width], d, self.d_n2H
        return map(_Back, *map(chunk.order.parts, views))

    def step_back(self, number: int, own: _Back, d: Sequence[Tensor]) -> None:
        """Take a step back."""
        d_h = d[0]
        torch.mul(own.factors, d_h.unsqueeze(1), out=own.d)
        d_h.mul_(own.f)
        self.through_h(d_h, own.d_s_u, self.layer.params["weight_hh"], add=True)

    def gates(self, outcome: Outcome) -> Tensor:
        """Two of the three blocks."""
        return in_blocks(outcome.saved[0], 3)[:, 1:]

    def sums_back(self) -> Tensor:
        """Those of both sums."""
        return in_blocks(self.d_n2H, 2)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        self.of_weight("weight_ih", self.d_n2H, self.layer.x[chunk.rows])
        self.of_weight("weight_hh", self.d_n2H, before.h)
        self.of_bias("bias_ih", self.d_n2H)
        self.of_input(self.d_n2H, self.layer.params["weight_ih"], chunk)
