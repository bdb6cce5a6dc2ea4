"""LayerNorm LSTMs in ATen calls: the one that carries c as it is, and the one that carries the normalised c.

The norm of W_ih x is taken of all steps at once. What the norms within the recurrence need for the way back is kept.

Shape legend: N = rows of all steps, b = rows of a step, H = hidden, P = width of h, G = 4 * H (gates i, f, g, o).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Layer, Outcome
from gradguard.nn.kernels.lstm import AbstractEagerLSTM
from gradguard.nn.kernels.products import bias_sum, write_product
from gradguard.nn.kernels.step_norm import StepNorm, StepNormBack
from gradguard.nn.order import Chunk


class AbstractEagerLayerNormLSTM(AbstractEagerLSTM):
    """Norms of what x and h give to the gates, and one in the cell."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.dtype, self.eps = layer.states[1].dtype, float(vars(layer.recurrence)["eps"])
        self.narrow = 4 * layer.x.shape[1] <= layer.states[1].shape[1]

    def start(self) -> Tensor:
        """Take the product with x, its norm, and the biases after it."""
        params, order = self.layer.params, self.layer.order
        self.raw_x = self.from_input(self.layer.x)
        self.norm_x = StepNorm(params["gain_ih"], bias_sum(params, self.dtype), self.eps, self.dtype)
        self.norm_h = StepNorm(params["gain_hh"], None, self.eps, self.dtype)
        self.norm_c = StepNorm(params["gain_c"], params.get("bias_c"), self.eps, self.dtype)
        gates = self.norm_x(self.raw_x)
        self.raw_h = self.raw_x if self.narrow else torch.empty_like(self.raw_x)  # written over
        self.raw_h_parts = order.parts(self.raw_h)
        return gates

    def from_input(self, x: Tensor) -> Tensor:
        """Take the product with x; of a narrow x it is cheaper to take it again on the way back than to keep it."""
        return (x @ self.layer.params["weight_ih"].t()).to(self.dtype)

    def enter(self, step: int, z_bG: Tensor, h_bP: Tensor) -> None:
        """Add the norm of the product with h."""
        raw = self.raw_h_parts[step]
        write_product(raw, h_bP, self.layer.params["weight_hh"].t())
        z_bG += self.norm_h(raw)

    def kept(self) -> list[Tensor]:
        """What was normed, and the statistics."""
        stats = [s for norm in (self.norm_x, self.norm_h, self.norm_c) for s in norm.stats(self.layer.order)]
        return [*([] if self.narrow else [self.raw_x]), self.raw_h, *stats]

    def saved(self) -> list[Tensor]:
        """The gates and the tanh; what went into the norms, and their statistics."""
        gates, tanh = super().saved()
        normed = [torch.empty_like(gates) for _ in range(1 if self.narrow else 2)]
        return [gates, tanh, *normed, *(gates.new_empty(gates.shape[0], 1) for _ in range(6))]

    @abstractmethod
    def normed_cells(self, outcome: Outcome) -> Tensor:
        """What went into the norm within the cell, [N, H]."""

    def start_back(self, outcome: Outcome, chunk: Chunk) -> None:
        """Take up what was kept of a chunk."""
        params, kept = self.layer.params, [s[chunk.rows] for s in outcome.saved[2:]]
        raw_x = self.from_input(self.layer.x[chunk.rows]) if self.narrow else kept.pop(0)
        raw_h, *stats = kept
        raw_c = self.normed_cells(outcome)[chunk.rows]
        self.norm_x_back = StepNormBack(raw_x, stats[0:2], params["gain_ih"], None, chunk.order)
        self.norm_h_back = StepNormBack(raw_h, stats[2:4], params["gain_hh"], None, chunk.order)
        self.norm_c_back = StepNormBack(raw_c, stats[4:6], params["gain_c"], params.get("bias_c"), chunk.order)
        self.d_normed_c = torch.empty_like(raw_c)
        self.d_normed_parts = chunk.order.parts(self.d_normed_c)

    def enter_back(self, step: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the norm and the product with h."""
        write_product(d_h, self.norm_h_back(step, d_z), self.layer.params["weight_hh"])

    def finish_back(self, d_nG: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Go back through the norms of all steps of the chunk."""
        of_x, gain_ih, _ = self.norm_x_back.all_steps(d_nG)
        of_h, gain_hh, _ = self.norm_h_back.all_steps(d_nG)
        _, gain_c, bias_c = self.norm_c_back.all_steps(self.d_normed_c)
        found = {"gain_ih": gain_ih, "gain_hh": gain_hh, "gain_c": gain_c}
        return of_x, of_h, found if bias_c is None else found | {"bias_c": bias_c}


@final
class EagerLayerNormLSTM(AbstractEagerLayerNormLSTM):
    """The cell is carried as it is."""

    def leave(self, step: int, c_bH: Tensor, tanh_bH: Tensor) -> None:
        """Take the tanh of the norm of c."""
        torch.tanh(self.norm_c(c_bH), out=tanh_bH)

    def normed_cells(self, outcome: Outcome) -> Tensor:
        """The cells themselves."""
        return outcome.sequences[1]

    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the norm."""
        d_normed = torch.mul(d_m, through, out=self.d_normed_parts[step])
        return d_c.add_(self.norm_c_back(step, d_normed))


@final
class EagerNormalizedCellLSTM(AbstractEagerLayerNormLSTM):
    """The normalised cell is carried."""

    def start(self) -> Tensor:
        """Keep the cells as they were before the norm, too."""
        _, x, (_, c), _, order = self.layer
        self.raw_c = c.new_empty(len(x), c.shape[1])
        self.raw_c_parts = order.parts(self.raw_c)
        return super().start()

    def leave(self, step: int, c_bH: Tensor, tanh_bH: Tensor) -> None:
        """Norm the cell, and take the tanh of that."""
        torch.tanh(c_bH.copy_(self.norm_c(self.raw_c_parts[step].copy_(c_bH))), out=tanh_bH)

    def kept(self) -> list[Tensor]:
        """The cells before the norm, too."""
        return [*super().kept(), self.raw_c]

    def saved(self) -> list[Tensor]:
        """The cells before the norm, too."""
        found = super().saved()
        return [*found, torch.empty_like(found[1])]

    def normed_cells(self, outcome: Outcome) -> Tensor:
        """The cells before the norm."""
        return outcome.saved[-1]

    def leave_back(self, step: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Everything comes back through the norm."""
        return self.norm_c_back(step, torch.addcmul(d_c, d_m, through, out=self.d_normed_parts[step]))
