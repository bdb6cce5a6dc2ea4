"""The LSTM family in ATen calls, with the backward pass by hand.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, B = batch, H = hidden, P = width of h,
G = what goes into the gates, 4 * H (gates i, f, g, o) where a cell has no others.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Outcome
from gradguard.nn.kernels.eager import AbstractEager, Before, Steps
from gradguard.nn.kernels.gates import BackStep, Factors, ForwardStep, forward_steps, gradient_factors
from gradguard.nn.kernels.products import add_product, bias_sum, in_blocks, write_product
from gradguard.nn.order import Chunk, resized


class AbstractEagerLSTM(AbstractEager):
    """A subclass says how h enters the gates and how c leaves the cell, and back; where it is another, the cell."""

    @abstractmethod
    def begin(self) -> Tensor:
        """Begin a forward pass: what x and the biases add to the gates at all steps, [N, G], which is written over."""

    @abstractmethod
    def enter(self, own: ForwardStep, h_bP: Tensor) -> None:
        """Add to the gates of a step what the h before it gives."""

    @abstractmethod
    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Write the tanh that leaves the cell; c is as the gates make it, and afterwards what is carried on."""

    @abstractmethod
    def begin_back(self, kept: list[Tensor], fresh: list[Tensor], chunk: Chunk) -> None:
        """Begin the backward pass of a chunk, with what was kept beside the gates and the tanh."""

    @abstractmethod
    def leave_back(self, number: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Gradient of c as the gates make it: from that of c carried on, and d_m * through, that before the tanh."""

    def carried_back(self, number: int, d_raw: Tensor) -> Tensor:
        """Total gradient of the c that is carried on, once :meth:`leave_back` gave that of c as the gates make it."""
        return d_raw

    @abstractmethod
    def enter_back(self, number: int, d_z: Tensor, d_h: Tensor) -> None:
        """Write the gradient of the h before a step, from that of the step's gates."""

    @abstractmethod
    def of_products(self, d_nG: Tensor) -> tuple[Tensor, Tensor]:
        """End a chunk: gradients of W_ih x and W_hh h, from those of the gates; add up those of what is between."""

    def cell(self, own: ForwardStep, c_before: Tensor, c: Tensor) -> None:
        """Write c from the open gates."""
        torch.mul(own.f, c_before, out=c).addcmul_(own.i, own.g)

    def factors(self, gates_nG: Tensor, tanh_nH: Tensor, c_before_nH: Tensor) -> Factors:
        """Compute by what the gradients of some steps are multiplied."""
        return gradient_factors(gates_nG, tanh_nH, c_before_nH)

    def start(self) -> Steps:
        """Take the products with x; room for the tanh, and for what leaves the cell."""
        _, x, (_, c0), params, order, _ = self.layer
        self.gates_NG, self.project = self.begin(), params.get("weight_hr")
        self.tanh_NH = c0.new_empty(len(x), c0.shape[1])
        m_NH = self.fresh[0] if self.project is None else x.new_empty(self.tanh_NH.shape)
        return forward_steps(self.gates_NG, self.tanh_NH, m_NH, order)

    def step(self, own: ForwardStep, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step."""
        self.enter(own, h)
        own.i_f.sigmoid_()
        own.g.tanh_()
        self.cell(own, old[1], new[1])
        self.leave(own, new[1])
        own.o.sigmoid_()
        torch.mul(own.o, own.tanh, out=own.m)
        if self.project is not None:
            write_product(new[0], own.m, self.project.t())

    def kept(self) -> list[Tensor]:
        """The gates, and the tanh that leaves the cell."""
        return [self.gates_NG, self.tanh_NH]

    def like_kept(self) -> list[Tensor]:
        """The same."""
        rows, c = self.layer.x.shape[0], self.layer.states[1]
        return [c.new_empty(rows, self.blocks * c.shape[1]), c.new_empty(rows, c.shape[1])]

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Compute all that does not depend on the gradients."""
        (self.gates_nG, self.tanh_nH), parts = kept[:2], chunk.order.parts
        self.project = self.layer.params.get("weight_hr")
        self.d_nG, width = torch.empty_like(self.gates_nG), self.layer.states[0].shape[1]
        self.d_nP = None if self.project is None else self.tanh_nH.new_empty(len(self.tanh_nH), width)
        d_nGH = self.d_nG.unflatten(1, (self.blocks, self.tanh_nH.shape[1]))
        self.begin_back(kept[2:], fresh, chunk)
        projected = (None,) * len(chunk.steps) if self.d_nP is None else parts(self.d_nP)
        factors = map(parts, self.factors(self.gates_nG, self.tanh_nH, before.states[1]))
        written = map(parts, (self.d_nG, d_nGH[:, :-1], d_nGH[:, -1]))
        return map(BackStep, *written, projected, *factors)

    def gates(self, outcome: Outcome) -> Tensor:
        """They were kept."""
        return in_blocks(outcome.saved[0], self.blocks)

    def sums_back(self) -> Tensor:
        """Those of all gates."""
        return in_blocks(self.d_nG, self.blocks)

    def step_back(self, number: int, own: BackStep, d: Sequence[Tensor]) -> None:
        """Take a step back."""
        d_h, d_c = d
        d_m = d_h
        if self.project is not None and own.d_projected is not None:
            own.d_projected.copy_(d_h)
            d_m = (d_h.to(self.project.dtype) @ self.project).to(d_h.dtype)
        d_raw = self.leave_back(number, d_c, d_m, own.through)
        if self.witness is not None:
            self.witness.pass_by(number, 1, self.carried_back(number, d_raw))
        torch.mul(own.of_cell, d_raw.unsqueeze(1), out=own.d_cell)
        torch.mul(own.of_out, d_m, out=own.d_out)
        torch.mul(d_raw, own.of_before, out=d_c)
        self.enter_back(number, own.d_z, d_h)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        x, params = self.layer.x[chunk.rows], self.layer.params
        of_x, of_h = self.of_products(self.d_nG)
        of_x = of_x.to(x.dtype)
        if "bias_ih" in self.d_params or "bias_hh" in self.d_params:
            total = self.d_nG.sum(0)
            for name in self.d_params.keys() & {"bias_ih", "bias_hh"}:
                self.d_params[name] += total
        self.of_weight("weight_ih", of_x, x)
        self.of_weight("weight_hh", of_h, before.h)
        if self.d_nP is not None:
            self.of_weight("weight_hr", self.d_nP, self.gates_nG[:, -self.tanh_nH.shape[1] :] * self.tanh_nH)
        self.of_input(of_x, params["weight_ih"], chunk)


class AbstractEagerPlainLSTM(AbstractEagerLSTM):
    """The product with h enters the gates as it is, and c leaves through a tanh."""

    def begin(self) -> Tensor:
        """Take the product with x, and the biases."""
        x, params = self.layer.x, self.layer.params
        bias = bias_sum(params, self.wide)
        self.weight_t = params["weight_hh"].t()
        gates = (x @ params["weight_ih"].t()).to(self.wide)
        return gates if bias is None else gates.add_(bias)

    def enter(self, own: ForwardStep, h_bP: Tensor) -> None:
        """Add the product with h."""
        add_product(own.z, h_bP, self.weight_t)

    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Take the tanh of c."""
        torch.tanh(c_bH, out=own.tanh)

    def begin_back(self, kept: list[Tensor], fresh: list[Tensor], chunk: Chunk) -> None:
        """Do nothing."""

    def leave_back(self, number: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the tanh."""
        return d_c.addcmul_(d_m, through)

    def enter_back(self, number: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the product with h."""
        self.through_h(d_h, d_z, self.layer.params["weight_hh"])

    def of_products(self, d_nG: Tensor) -> tuple[Tensor, Tensor]:
        """Both are the gates' own."""
        return d_nG, d_nG


@final
class EagerLSTM(AbstractEagerPlainLSTM):
    """The LSTM itself."""

    def recalled(self, h_NP: Tensor) -> Outcome:
        """What a forward pass leaves, from the h that it gave: only c has to wait for the step before."""
        (h0, c0), order = self.layer.states, self.layer.order
        gates = self.begin()
        add_product(gates, order.rows_before(h_NP, h0), self.weight_t)
        i, f, g, o = gates.chunk(4, dim=1)
        gates[:, : 2 * c0.shape[1]].sigmoid_()
        g.tanh_()
        o.sigmoid_()
        c_NH, now = i * g, c0
        for own, open_ in zip(order.parts(c_NH), order.parts(f), strict=True):
            now = own.addcmul_(open_, resized(now, len(own), c0))
        return Outcome([h_NP, c_NH], [gates, c_NH.tanh()])
