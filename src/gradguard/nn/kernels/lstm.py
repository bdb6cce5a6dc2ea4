"""The loops of the LSTM family in ATen calls, with the backward pass by hand.

What does not depend on the recurrence is done for many steps at once: the product with the input, the derivatives of
the gates, the gradients of the weights. What is left of a step are two matrix products, one each way, and a dozen
pointwise calls. The backward pass goes by chunks of steps that a cache holds, so that what is needed on the way is
written to the same memory again and again: fresh memory has its price.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, B = batch, H = hidden, P = width of h,
G = 4 * H (gates i, f, g, o).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import AbstractKernel, Gradients, Outcome
from gradguard.nn.kernels.gates import BackStep, gate_parts, gradient_factors
from gradguard.nn.kernels.products import add_product, bias_sum, write_product
from gradguard.nn.order import Chunk, resized

ENTRIES = 2**19  # of a chunk's gates


class AbstractEagerLSTM(AbstractKernel):
    """The family's two loops. A subclass says how h enters the gates and how c leaves the cell, and back.

    Steps are numbered in the order in which they come, within a chunk from 0 on.
    """

    @abstractmethod
    def start(self) -> Tensor:
        """Begin a forward pass: what x and the biases add to the gates at all steps, [N, G], which is written over."""

    @abstractmethod
    def enter(self, step: int, z_bG: Tensor, h_bP: Tensor) -> None:
        """Add to the gates of a step what the h before it gives."""

    @abstractmethod
    def leave(self, step: int, c_bH: Tensor, tanh_bH: Tensor) -> None:
        """Write the tanh that leaves the cell; c is f * c_before + i * g, and afterwards what is carried on."""

    @abstractmethod
    def kept(self) -> list[Tensor]:
        """What the backward pass wants beside the gates and the tanh."""

    @abstractmethod
    def start_back(self, outcome: Outcome, chunk: Chunk) -> None:
        """Begin the backward pass of a chunk."""

    @abstractmethod
    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Gradient of f * c_before + i * g: from that of the c carried on, and d_m * through, that before the tanh."""

    @abstractmethod
    def enter_back(self, step: int, d_z: Tensor, d_h: Tensor) -> None:
        """Write the gradient of the h before a step, from that of the step's gates."""

    @abstractmethod
    def finish_back(self, d_nG: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """End a chunk: gradients of W_ih x and W_hh h, and of the parameters behind them, from those of the gates."""

    def saved(self) -> list[Tensor]:
        """The gates, and the tanh that leaves the cell."""
        rows, c = self.layer.x.shape[0], self.layer.states[1]
        return [c.new_empty(rows, 4 * c.shape[1]), c.new_empty(rows, c.shape[1])]

    def forward(self, *, save: bool) -> Outcome:
        """Run all steps."""
        _, x, (h0, c0), params, order = self.layer
        gates_NG, project = self.start(), params.get("weight_hr")
        h_NP, c_NH = x.new_empty(len(x), h0.shape[1]), c0.new_empty(len(x), c0.shape[1])
        tanh_NH, m_NH = torch.empty_like(c_NH), h_NP if project is None else x.new_empty(c_NH.shape)
        steps = zip(*map(order.parts, (gates_NG, h_NP, c_NH, tanh_NH, m_NH)), *gate_parts(gates_NG, order), strict=True)
        h, c, even = h0, c0, order.even
        for step, (z, new_h, new_c, tanh, m, i_f, i, f, g, o) in enumerate(steps):
            if not even:
                h, c = resized(h, len(z), h0), resized(c, len(z), c0)
            self.enter(step, z, h)
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, c, out=new_c).addcmul_(i, g)
            self.leave(step, new_c, tanh)
            torch.mul(o, tanh, out=m)
            if project is not None:
                write_product(new_h, m, project.t())
            h, c = new_h, new_c
        return Outcome([h_NP, c_NH], [gates_NG, tanh_NH, *self.kept()] if save else [])

    def backward(
        self,
        outcome: Outcome,
        of_sequences: Sequence[Tensor | None],
        of_finals: Sequence[Tensor | None],
        needed: frozenset[str],
    ) -> Gradients:
        """Run all steps back, chunk by chunk."""
        _, x, (h0, c0), params, order = self.layer
        wide = c0.dtype
        self.d_x = torch.empty_like(x) if "x" in needed else None
        self.d_params = {name: torch.zeros_like(params[name], dtype=wide) for name in needed - {"x"}}
        state = [
            torch.zeros(s.shape, dtype=wide, device=x.device) if of is None else of.to(wide, copy=True)
            for s, of in zip((h0, c0), of_finals, strict=True)
        ]
        before = [order.before(s, s0) for s, s0 in zip(outcome.sequences, (h0, c0), strict=True)]
        for chunk in order.chunks(ENTRIES // (4 * c0.shape[1])):
            steps = slice(chunk.steps.start, chunk.steps.stop)
            h_before, c_before = (torch.cat(b[steps][:: -1 if order.reverse else 1]) for b in before)
            d_nG, d_nP = self._chunk_back(outcome, chunk, c_before, of_sequences, state)
            self._weights_back(outcome, chunk, h_before, d_nG, d_nP)
        of_params = {name: grad.to(params[name].dtype) for name, grad in self.d_params.items()}
        return Gradients(self.d_x, [state[0].to(h0.dtype), state[1]], of_params)

    def _chunk_back(
        self,
        outcome: Outcome,
        chunk: Chunk,
        c_before: Tensor,
        of_sequences: Sequence[Tensor | None],
        state: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Run the steps of a chunk back: gradients of its gates, and of what comes out of the projection."""
        gates_nG, tanh_nH = (s[chunk.rows] for s in outcome.saved[:2])
        project, parts = self.layer.params.get("weight_hr"), chunk.order.parts
        d_nG, (d_h, d_c) = torch.empty_like(gates_nG), state
        d_nP = None if project is None else tanh_nH.new_empty(len(tanh_nH), d_h.shape[1])
        d_n4H = d_nG.unflatten(1, (4, tanh_nH.shape[1]))
        self.start_back(outcome, chunk)
        none = (None,) * len(chunk.steps)
        into = [none if s is None else parts(s[chunk.rows]) for s in of_sequences]
        outputs = [*map(parts, (d_nG, d_n4H[:, :3], d_n4H[:, 3])), none if d_nP is None else parts(d_nP)]
        factors = map(parts, gradient_factors(gates_nG, tanh_nH, c_before))
        steps = [BackStep(*step) for step in zip(*into, *outputs, *factors, strict=True)]
        even = self.layer.order.even
        for number in range(len(steps) - 1, -1, -1):
            step = steps[number]
            rows = step.d_z.shape[0]
            d_h_b, d_c_b = (d_h, d_c) if even else (d_h[:rows], d_c[:rows])
            if step.into_h is not None:
                d_h_b += step.into_h
            if step.into_c is not None:
                d_c_b += step.into_c
            d_m = d_h_b
            if project is not None and step.d_projected is not None:
                step.d_projected.copy_(d_h_b)
                d_m = (d_h_b.to(project.dtype) @ project).to(d_h.dtype)
            d_raw = self.leave_back(number, d_c_b, d_m, step.through)
            torch.mul(step.of_cell, d_raw.unsqueeze(1), out=step.d_cell)
            torch.mul(step.of_out, d_m, out=step.d_out)
            torch.mul(d_raw, step.of_before, out=d_c_b)
            self.enter_back(number, step.d_z, d_h_b)
        return d_nG, d_nP

    def _weights_back(
        self, outcome: Outcome, chunk: Chunk, h_before: Tensor, d_nG: Tensor, d_nP: Tensor | None
    ) -> None:
        """Add up what a chunk gives to the gradients of the parameters, and write those of its x."""
        x, params, found = self.layer.x[chunk.rows], self.layer.params, self.d_params
        of_x, of_h, behind = self.finish_back(d_nG)
        of_x, of_h = of_x.to(x.dtype), of_h.to(x.dtype)
        if "bias_ih" in found or "bias_hh" in found:
            behind["bias_ih"] = behind["bias_hh"] = d_nG.sum(0)
        for name in behind.keys() & found.keys():
            found[name] += behind[name]
        if "weight_ih" in found:
            add_product(found["weight_ih"], of_x.t(), x)
        if "weight_hh" in found:
            add_product(found["weight_hh"], of_h.t(), h_before)
        if "weight_hr" in found and d_nP is not None:
            gates_nG, tanh_nH = (s[chunk.rows] for s in outcome.saved[:2])
            m_nH = (gates_nG[:, -tanh_nH.shape[1] :] * tanh_nH).to(x.dtype)
            add_product(found["weight_hr"], d_nP.to(x.dtype).t(), m_nH)
        if self.d_x is not None:
            write_product(self.d_x[chunk.rows], of_x, params["weight_ih"])


@final
class EagerLSTM(AbstractEagerLSTM):
    """The LSTM itself."""

    def start(self) -> Tensor:
        """Take the product with x, and the biases."""
        x, c, params = self.layer.x, self.layer.states[1], self.layer.params
        bias = bias_sum(params, c.dtype)
        self.weight_t = params["weight_hh"].t()
        gates = (x @ params["weight_ih"].t()).to(c.dtype)
        return gates if bias is None else gates.add_(bias)

    def enter(self, step: int, z_bG: Tensor, h_bP: Tensor) -> None:
        """Add the product with h."""
        add_product(z_bG, h_bP, self.weight_t)

    def leave(self, step: int, c_bH: Tensor, tanh_bH: Tensor) -> None:
        """Take the tanh of c."""
        torch.tanh(c_bH, out=tanh_bH)

    def kept(self) -> list[Tensor]:
        """Nothing more."""
        return []

    def start_back(self, outcome: Outcome, chunk: Chunk) -> None:
        """Do nothing."""

    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the tanh."""
        return d_c.addcmul_(d_m, through)

    def enter_back(self, step: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the product with h."""
        write_product(d_h, d_z, self.layer.params["weight_hh"])

    def finish_back(self, d_nG: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Both are the gates' own."""
        return d_nG, d_nG, {}
