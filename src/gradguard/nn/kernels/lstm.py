"""The loops of the LSTM family in ATen calls, with the backward pass by hand.

What does not depend on the recurrence is done for many steps at once: the product with the input, the derivatives of the
gates, the gradients of the weights. What is left of a step are two matrix products, one each way, and a dozen pointwise
calls.

Shape legend: N = rows of all steps, B = batch, b = rows of a step, H = hidden, P = width of h, G = 4 * H (gates i, f, g,
o).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import AbstractKernel, Gradients, Outcome
from gradguard.nn.kernels.gates import ENTRIES, gate_parts, gradient_factors
from gradguard.nn.kernels.products import add_product, bias_sum, recurrent_gradient, write_product
from gradguard.nn.order import resized


class AbstractEagerLSTM(AbstractKernel):
    """The family's two loops. A subclass says how h enters the gates and how c leaves the cell, and back.

    Steps are numbered in the order in which they come.
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
    def start_back(self, outcome: Outcome) -> None:
        """Begin a backward pass."""

    @abstractmethod
    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Gradient of f * c_before + i * g: from that of the c carried on, and from d_m * through, that before the tanh."""

    @abstractmethod
    def enter_back(self, step: int, d_z: Tensor, d_h: Tensor) -> None:
        """Write the gradient of the h before a step, from that of the step's gates."""

    @abstractmethod
    def products_back(self, d_NG: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Gradients of W_ih x and W_hh h at all steps, and of the parameters that stand behind these, from the gates'."""

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
        h, c = h0, c0
        for step, (z, new_h, new_c, tanh, m, i_f, i, f, g, o) in enumerate(steps):
            self.enter(step, z, resized(h, len(z), h0))
            i_f.sigmoid_()
            g.tanh_()
            o.sigmoid_()
            torch.mul(f, resized(c, len(z), c0), out=new_c).addcmul_(i, g)
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
        """Run all steps back, then take the gradients of the weights from all steps at once."""
        _, x, (h0, c0), params, order = self.layer
        (h_NP, c_NH), (gates_NG, tanh_NH) = outcome.sequences, outcome.saved[:2]
        project = params.get("weight_hr")
        d_h, d_c = (
            torch.zeros(s.shape, dtype=c0.dtype, device=x.device) if of is None else of.to(c0.dtype, copy=True)
            for s, of in zip((h0, c0), of_finals, strict=True)
        )
        d_NG = torch.empty_like(gates_NG)
        d_NP = None if project is None else c0.new_empty(h_NP.shape)
        self.start_back(outcome)
        before, d_steps = order.before(c_NH, c0), order.parts(d_NG)
        none = (None,) * len(d_steps)
        into_h, into_c, d_outs = (none if t is None else order.parts(t) for t in (*of_sequences, d_NP))
        for chunk in order.chunks(ENTRIES // gates_NG.shape[1]):
            gates, numbers = gates_NG[chunk.rows], chunk.steps
            c_before = torch.cat(before[numbers.start : numbers.stop][:: -1 if order.reverse else 1])
            factors = gradient_factors(gates, tanh_NH[chunk.rows], c_before)
            parts = list(zip(numbers, gate_parts(gates, chunk.order).f, *map(chunk.order.parts, factors), strict=True))
            for step, f, of_cell, of_out, through in reversed(parts):
                d_z, (d_h_now, d_c_now) = d_steps[step], (d[: len(f)] if len(f) < len(d) else d for d in (d_h, d_c))
                for total, into in ((d_h_now, into_h[step]), (d_c_now, into_c[step])):
                    if into is not None:
                        total += into
                d_m = d_h_now
                if project is not None:
                    d_outs[step].copy_(d_h_now)
                    d_m = (d_h_now.to(project.dtype) @ project).to(d_c.dtype)
                d_raw = self.leave_back(step, d_c_now, d_m, through)
                by_gate = d_z.unflatten(1, (4, c0.shape[1]))
                torch.mul(of_cell, d_raw.unsqueeze(1), out=by_gate[:, :3])
                torch.mul(of_out, d_m, out=by_gate[:, 3])
                torch.mul(d_raw, f, out=d_c_now)
                self.enter_back(step, d_z, d_h_now)
        d_x, of_params = self.weights_back(outcome, d_NG, d_NP, needed)
        return Gradients(d_x, [d_h.to(h0.dtype), d_c], of_params)

    def weights_back(
        self, outcome: Outcome, d_NG: Tensor, d_NP: Tensor | None, needed: frozenset[str]
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Gradients of x and of the parameters: one product each for all steps."""
        _, x, (h0, _), params, order = self.layer
        of_x, of_h, found = self.products_back(d_NG)
        of_x, of_h = of_x.to(x.dtype), of_h.to(x.dtype)
        if "bias_ih" in params:
            found["bias_ih"] = d_NG.sum(0)
            found["bias_hh"] = found["bias_ih"].clone()
        if "weight_ih" in needed:
            found["weight_ih"] = of_x.t() @ x
        if "weight_hh" in needed:
            found["weight_hh"] = recurrent_gradient(of_h, outcome.sequences[0], h0, order)
        if d_NP is not None:
            gates_NG, tanh_NH = outcome.saved[:2]
            m_NH = gates_NG[:, -tanh_NH.shape[1] :] * tanh_NH
            found["weight_hr"] = d_NP.to(x.dtype).t() @ m_NH.to(x.dtype)
        d_x = of_x @ params["weight_ih"] if "x" in needed else None
        return d_x, {name: grad.to(params[name].dtype) for name, grad in found.items() if name in needed}


@final
class EagerLSTM(AbstractEagerLSTM):
    """The LSTM itself."""

    def start(self) -> Tensor:
        """Take the product with x, and the biases."""
        x, c, params = self.layer.x, self.layer.states[1], self.layer.params
        bias = bias_sum(params, c.dtype)
        gates = (x @ params["weight_ih"].t()).to(c.dtype)
        return gates if bias is None else gates.add_(bias)

    def enter(self, step: int, z_bG: Tensor, h_bP: Tensor) -> None:
        """Add the product with h."""
        add_product(z_bG, h_bP, self.layer.params["weight_hh"].t())

    def leave(self, step: int, c_bH: Tensor, tanh_bH: Tensor) -> None:
        """Take the tanh of c."""
        torch.tanh(c_bH, out=tanh_bH)

    def kept(self) -> list[Tensor]:
        """Nothing more."""
        return []

    def start_back(self, outcome: Outcome) -> None:
        """Nothing to do."""

    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the tanh."""
        return d_c.addcmul_(d_m, through)

    def enter_back(self, step: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the product with h."""
        write_product(d_h, d_z, self.layer.params["weight_hh"])

    def products_back(self, d_NG: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Both are the gates' own."""
        return d_NG, d_NG, {}
