"""The GRU in ATen calls, with the backward pass by hand.

With u = W_hn h + b_hn and h' = n + z (h - n):

    dL/dn's sum = dL/dh' * (1 - z) (1 - n^2)        dL/du = the same * r
    dL/dr's sum = the same * u r (1 - r)            dL/dz's sum = dL/dh' * (h - n) z (1 - z)
    dL/dh = dL/dh' * z + what comes back through the products

All factors of dL/dh' are known beforehand: they are computed for many steps at once.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, H = hidden; four blocks: r, z, u, n.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Outcome
from gradguard.nn.kernels.eager import AbstractEager, Before, Steps
from gradguard.nn.kernels.products import add_product, in_blocks
from gradguard.nn.order import Chunk, Order


class GRUStep(NamedTuple):
    """Views of what a step computes."""

    number: int
    r_z_u: Tensor  # [b, 3H], and parts of it
    r_z: Tensor
    r: Tensor
    z: Tensor
    u: Tensor
    n: Tensor  # [b, H]


class GRUBack(NamedTuple):
    """What a step back reads and writes."""

    factors: Tensor  # of dL/dh', for the gradients of the four sums, [b, 4, H]
    z: Tensor  # of dL/dh', for dL/dh
    d: Tensor  # written: these gradients, [b, 4, H]
    d_r_z_u: Tensor  # the first three of them, [b, 3H]


def gru_steps(blocks_N4H: Tensor, order: Order) -> Steps:
    """Cut the four blocks of all steps into views."""
    h = blocks_N4H.shape[1] // 4
    bounds = (0, 3 * h), (0, 2 * h), (0, h), (h, 2 * h), (2 * h, 3 * h), (3 * h, 4 * h)
    return map(GRUStep, count(), *(order.parts(blocks_N4H[:, low:high]) for low, high in bounds))


def gru_factors(blocks_n4H: Tensor, h_before_nH: Tensor) -> Tensor:
    """Compute the factors of some steps, [n, 4, H]."""
    blocks = blocks_n4H.unflatten(1, (4, h_before_nH.shape[1]))
    r, z, u, n = blocks.unbind(1)
    factors = torch.empty_like(blocks)
    of_r, of_z, of_u, of_n = factors.unbind(1)
    torch.addcmul(z, z, z, value=-1, out=of_z).mul_(h_before_nH - n)
    torch.mul(1 - z, 1 - n * n, out=of_n)
    torch.mul(of_n, r, out=of_u)
    torch.mul(of_u, u, out=of_r).mul_(1 - r)
    return factors


class AbstractEagerGRU(AbstractEager):
    """A subclass says how x and h enter the gates, and back."""

    @abstractmethod
    def begin(self, blocks_N4H: Tensor) -> None:
        """Begin a forward pass: write what x and the biases give."""

    @abstractmethod
    def enter(self, own: GRUStep, h_bH: Tensor) -> None:
        """Add to r and z of a step what the h before it gives, and make u whole."""

    @abstractmethod
    def enter_back(self, number: int, own: GRUBack, d_h: Tensor) -> None:
        """Add to the gradient of the h before a step what comes back from the gradients of r, z and u."""

    def start(self) -> Steps:
        """Make room for the four blocks."""
        x, (h0,) = self.layer.x, self.layer.states
        self.blocks_N4H = x.new_empty(len(x), 4 * h0.shape[1], dtype=self.wide)
        self.begin(self.blocks_N4H)
        return gru_steps(self.blocks_N4H, self.layer.order)

    def step(self, own: GRUStep, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step."""
        self.enter(own, h)
        own.r_z.sigmoid_()
        own.n.addcmul_(own.r, own.u).tanh_()
        lerp(own.n, old[0], own.z, out=new[0])

    def kept(self) -> list[Tensor]:
        """The four blocks."""
        return [self.blocks_N4H]

    def like_kept(self) -> list[Tensor]:
        """The same."""
        x, h = self.layer.x, self.layer.states[0]
        return [x.new_empty(x.shape[0], 4 * h.shape[1], dtype=self.wide)]

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute all that does not depend on the gradients."""
        blocks, parts = kept[0], chunk.order.parts
        factors = gru_factors(blocks, before.states[0])
        self.d_n4H = torch.empty_like(blocks)
        width = factors.shape[2]
        views = factors, blocks[:, width : 2 * width], self.d_n4H.view_as(factors), self.d_n4H[:, : 3 * width]
        return map(GRUBack, *map(parts, views))

    def step_back(self, number: int, own: GRUBack, d: Sequence[Tensor]) -> None:
        """Take a step back."""
        d_h = d[0]
        torch.mul(own.factors, d_h.unsqueeze(1), out=own.d)
        d_h.mul_(own.z)
        self.enter_back(number, own, d_h)

    def gates(self, outcome: Outcome) -> Tensor:
        """Three of the four blocks."""
        r_z, _, n = in_blocks(outcome.saved[0], 4).split([2, 1, 1], dim=1)
        return torch.cat([r_z, n], dim=1)

    def sums_back(self) -> Tensor:
        """Three of four: u is no gate."""
        r_z, _, n = in_blocks(self.d_n4H, 4).split([2, 1, 1], dim=1)
        return torch.cat([r_z, n], dim=1)


@final
class EagerGRU(AbstractEagerGRU):
    """The products enter as they are."""

    def begin(self, blocks_N4H: Tensor) -> None:
        """Take the products with x, and the biases; u begins with its own."""
        x, params, width = self.layer.x, self.layer.params, blocks_N4H.shape[1] // 4
        weight, bias = params["weight_ih"], params.get("bias_ih")
        blocks_N4H[:, : 2 * width] = x @ weight[: 2 * width].t()
        blocks_N4H[:, 3 * width :] = x @ weight[2 * width :].t()
        blocks_N4H[:, 2 * width : 3 * width] = 0.0
        if bias is not None:
            blocks_N4H[:, : 3 * width] += params["bias_hh"].to(self.wide)
            blocks_N4H[:, : 2 * width] += bias[: 2 * width]
            blocks_N4H[:, 3 * width :] += bias[2 * width :]
        self.weight_t = params["weight_hh"].t()

    def recalled(self, h_NH: Tensor) -> Outcome:
        """What a forward pass leaves, from the h that it gave: no step has to wait for another."""
        (h0,), order = self.layer.states, self.layer.order
        blocks = h_NH.new_empty(len(h_NH), 4 * h0.shape[1], dtype=self.wide)
        self.begin(blocks)
        width = h0.shape[1]
        add_product(blocks[:, : 3 * width], order.rows_before(h_NH, h0), self.weight_t)
        blocks[:, : 2 * width].sigmoid_()
        r, _, u, n = blocks.chunk(4, dim=1)
        n.addcmul_(r, u).tanh_()
        return Outcome([h_NH], [blocks])

    def enter(self, own: GRUStep, h_bH: Tensor) -> None:
        """Add the product with h."""
        add_product(own.r_z_u, h_bH, self.weight_t)

    def enter_back(self, number: int, own: GRUBack, d_h: Tensor) -> None:
        """Go back through the product with h."""
        self.through_h(d_h, own.d_r_z_u, self.layer.params["weight_hh"], add=True)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        x, width, weight = self.layer.x[chunk.rows], self.d_n4H.shape[1] // 4, self.layer.params["weight_ih"]
        gates, candidate = slice(None, 2 * width), slice(2 * width, None)
        d_r_z, d_n = self.d_n4H[:, gates], self.d_n4H[:, 3 * width :]
        self.of_weight("weight_hh", self.d_n4H[:, : 3 * width], before.h)
        self.of_bias("bias_hh", self.d_n4H[:, : 3 * width])
        for rows, of_x in ((gates, d_r_z), (candidate, d_n)):
            self.of_weight("weight_ih", of_x, x, rows)
            self.of_bias("bias_ih", of_x, rows)
            self.of_input(of_x, weight[rows], chunk, add=rows is candidate)


def lerp(start: Tensor, end: Tensor, z: Tensor, *, out: Tensor) -> None:
    """``out = start + z (end - start)``, summed up in the dtype of z."""
    if out.dtype == z.dtype:
        torch.lerp(start, end, z, out=out)
    else:
        out.copy_(torch.lerp(start.to(z.dtype), end.to(z.dtype), z))
