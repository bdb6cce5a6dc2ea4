"""Cells whose reset gate stands before the product, in ATen calls, with the backward pass by hand.

With q = r h, which enters the product U_n q, a the sum that goes into a gate, and h' = h + w (n - h), where w is z
where z writes and 1 - z where it keeps:

    dL/da_n = dL/dh' * w (1 - n^2)          dL/da_z = dL/dh' * (n - h) z (1 - z), where z keeps, times -1
    dL/dq = U_n^T dL/da_n                   dL/da_r = dL/dq * h r (1 - r)
    dL/dh = dL/dh' * (1 - w) + dL/dq * r + what comes back through the other products

All factors of dL/dh' and dL/dq are known beforehand: they are computed for many steps at once.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, H = hidden; three blocks: r, z, n.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Layer, Outcome
from gradguard.nn.kernels.eager import AbstractEager, Before, Steps
from gradguard.nn.kernels.gru import lerp
from gradguard.nn.kernels.products import add_product, in_blocks, write_product
from gradguard.nn.order import Chunk


class ResetBeforeStep(NamedTuple):
    """Views of what a step computes."""

    first: Tensor  # the sums to which the first product is added: r, or r and z
    r_z: Tensor  # [b, 2H], and parts of it
    r: Tensor
    z: Tensor
    n: Tensor  # [b, H]


class ResetBeforeBack(NamedTuple):
    """What a step back reads and writes."""

    of_z_n: Tensor  # factors of dL/dh', for the gradients of the sums of z and n, [b, 2, H]
    carried: Tensor  # of dL/dh', for dL/dh
    of_r: Tensor  # of dL/dq, for the gradient of the sum of r
    reset: Tensor  # of dL/dq, for dL/dh
    d_z_n: Tensor  # written: these gradients, [b, 2, H]
    d_first: Tensor  # those of r, or of r and z, [b, H] or [b, 2H]
    d_r: Tensor
    d_z: Tensor
    d_n: Tensor


class AbstractEagerResetBefore(AbstractEager):
    """What goes into the gates is as in the first GRU, but for blocks that are missing; subclasses say what differs."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        width, gates = layer.states[0].shape[1], layer.recurrence.gates
        columns = {gate: slice(i * width, (i + 1) * width) for i, gate in enumerate(gates.names)}
        of_input = gates.within("weight_ih")
        self.r, self.z, self.n = columns.values()
        self.weighted = slice(columns[of_input[0]].start, columns[of_input[-1]].stop)
        self.bare = next((where for gate, where in columns.items() if gate not in of_input), None)
        self.u_first, self.u_n = layer.params["weight_hh"].tensor_split([-width])
        self.first = slice(0, len(self.u_first))
        self.is_kept = gates.keep == "z"

    def of_bare(self, x_NH: Tensor) -> Tensor:
        """What an x without a weight adds to the sum of its gate."""
        return x_NH

    def through_bare(self, d_nH: Tensor, x_nH: Tensor) -> Tensor:
        """Gradient of such an x, from that of the sum."""
        return d_nH

    def enter(self, own: ResetBeforeStep, h_bH: Tensor) -> None:
        """Add to the sums of r, or of r and z, what the h before a step gives."""
        add_product(own.first, h_bH, self.u_first.t())

    def begin_back(self, before: Before, chunk: Chunk) -> None:
        """Begin the backward pass of a chunk."""

    def enter_back(self, number: int, own: ResetBeforeBack, d_h: Tensor) -> None:
        """Add to the gradient of the h before a step what comes back through the first product."""
        self.through_h(d_h, own.d_first, self.u_first, add=True)

    def of_first(self, before: Before) -> None:
        """Add to the gradient of the first product's weight."""
        self.of_weight("weight_hh", self.d_n3H[:, self.first], before.h, self.first)

    def start(self) -> Steps:
        """Take the products with x, and the biases."""
        _, x, (h0,), params, order, _ = self.layer
        self.blocks_N3H = x.new_empty(len(x), 3 * h0.shape[1], dtype=self.wide)
        self.blocks_N3H[:, self.weighted] = x @ params["weight_ih"].t()
        if self.bare is not None:
            self.blocks_N3H[:, self.bare] = self.of_bare(self._bare_x(x))
        if "bias_ih" in params:
            self.blocks_N3H += params["bias_ih"]
        views = self.first, slice(0, self.z.stop), self.r, self.z, self.n
        return map(ResetBeforeStep, *(order.parts(self.blocks_N3H[:, where]) for where in views))

    def _bare_x(self, x: Tensor) -> Tensor:
        weight = self.layer.params.get("weight_in")
        return x if weight is None else x @ weight.t()

    def step(self, own: ResetBeforeStep, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step; q is written where the new h will be."""
        self.enter(own, h)
        own.r_z.sigmoid_()
        torch.mul(own.r, h, out=new[0])
        add_product(own.n, new[0], self.u_n.t())
        own.n.tanh_()
        start, end = (own.n, old[0]) if self.is_kept else (old[0], own.n)
        lerp(start, end, own.z, out=new[0])

    def kept(self) -> list[Tensor]:
        """The three blocks."""
        return [self.blocks_N3H]

    def like_kept(self) -> list[Tensor]:
        """The same."""
        x, h = self.layer.x, self.layer.states[0]
        return [x.new_empty(x.shape[0], 3 * h.shape[1], dtype=self.wide)]

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute all that does not depend on the gradients."""
        (blocks,), h = kept, before.states[0]
        self.r_nH, z, n = blocks.unflatten(1, (3, h.shape[1])).unbind(1)
        of_z_n = blocks.new_empty(len(blocks), 2, h.shape[1])
        of_z, of_n = of_z_n.unbind(1)
        torch.addcmul(z, z, z, value=-1, out=of_z).mul_(h - n if self.is_kept else n - h)
        write, carried = (1 - z, z) if self.is_kept else (z, 1 - z)
        torch.mul(write, 1 - n * n, out=of_n)
        of_r = torch.addcmul(self.r_nH, self.r_nH, self.r_nH, value=-1).mul_(before.h)
        self.d_n3H = torch.empty_like(blocks)
        self.begin_back(before, chunk)
        gradients = self.d_n3H.view(len(blocks), 3, h.shape[1])[:, 1:], self.d_n3H[:, self.first]
        views = of_z_n, carried, of_r, self.masked(self.r_nH, chunk), *gradients
        each = (self.d_n3H[:, where] for where in (self.r, self.z, self.n))
        return map(ResetBeforeBack, *map(chunk.order.parts, (*views, *each)))

    def masked(self, factors_nH: Tensor, chunk: Chunk) -> Tensor:
        """Factors of what comes back to the h that entered a product, for the h that is carried."""
        drop = self.layer.noise.drop_h
        if drop is None:
            return factors_nH
        return torch.cat([part * drop[: len(part)] for part in chunk.order.in_time(factors_nH)])

    def step_back(self, number: int, own: ResetBeforeBack, d: Sequence[Tensor]) -> None:
        """Take a step back; dL/dq is written where the gradient of the sum of r will be."""
        d_h, d_q = d[0], own.d_r
        torch.mul(own.of_z_n, d_h.unsqueeze(1), out=own.d_z_n)
        d_h.mul_(own.carried)
        write_product(d_q, own.d_n, self.u_n)
        d_h.addcmul_(d_q, own.reset)
        d_q.mul_(own.of_r)
        self.enter_back(number, own, d_h)

    def gates(self, outcome: Outcome) -> Tensor:
        """They were kept."""
        return in_blocks(outcome.saved[0], 3)

    def sums_back(self) -> Tensor:
        """Those of all three."""
        return in_blocks(self.d_n3H, 3)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        x, params, of_x = self.layer.x[chunk.rows], self.layer.params, self.d_n3H[:, self.weighted]
        self.of_first(before)
        self.of_weight("weight_hh", self.d_n3H[:, self.n], self.r_nH * before.h, slice(self.first.stop, None))
        self.of_weight("weight_ih", of_x, x)
        self.of_bias("bias_ih", self.d_n3H)
        self.of_input(of_x, params["weight_ih"], chunk)
        if self.bare is None:
            return
        d_bare = self.through_bare(self.d_n3H[:, self.bare], self._bare_x(x))
        self.of_weight("weight_in", d_bare, x)
        if "weight_in" in params:
            self.of_input(d_bare, params["weight_in"], chunk, add=True)
        elif self.d_x is not None:
            self.d_x[chunk.rows] += d_bare


@final
class EagerOriginalGRU(AbstractEagerResetBefore):
    """See the head of this file."""


@final
class EagerMUT1(AbstractEagerResetBefore):
    """The tanh of x enters the candidate, and z is known from x alone."""

    def of_bare(self, x_NH: Tensor) -> Tensor:
        """Take its tanh."""
        return x_NH.to(self.wide).tanh()

    def through_bare(self, d_nH: Tensor, x_nH: Tensor) -> Tensor:
        """Go back through it."""
        tanh = self.of_bare(x_nH)
        return torch.addcmul(d_nH, d_nH, tanh * tanh, value=-1)


@final
class EagerMUT2(AbstractEagerResetBefore):
    """x itself enters r."""


@final
class EagerMUT3(AbstractEagerResetBefore):
    """The tanh of h enters z."""

    def enter(self, own: ResetBeforeStep, h_bH: Tensor) -> None:
        """Add the products with h and with its tanh."""
        add_product(own.r, h_bH, self.u_first[self.r].t())
        add_product(own.z, h_bH.tanh(), self.u_first[self.z].t())

    def begin_back(self, before: Before, chunk: Chunk) -> None:
        """Compute the derivatives of the tanh."""
        self.tanh_nH = before.h.tanh()
        tanh = self.tanh_nH.to(self.wide)
        self.slopes = chunk.order.parts(self.masked(1 - tanh * tanh, chunk))

    def enter_back(self, number: int, own: ResetBeforeBack, d_h: Tensor) -> None:
        """Go back through both products."""
        self.through_h(d_h, own.d_r, self.u_first[self.r], add=True)
        weight = self.u_first[self.z]
        d_h.addcmul_((own.d_z.to(weight.dtype) @ weight).to(d_h.dtype), self.slopes[number])

    def of_first(self, before: Before) -> None:
        """Each with what it was taken with."""
        self.of_weight("weight_hh", self.d_n3H[:, self.r], before.h, self.r)
        self.of_weight("weight_hh", self.d_n3H[:, self.z], self.tanh_nH, self.z)
