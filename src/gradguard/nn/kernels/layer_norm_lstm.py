"""LSTMs with norms in ATen calls: those that carry c as it is, and the one that carries the normalised c.

The norm of W_ih x is taken of all steps at once. What the norms within the recurrence need for the way back is kept.

Shape legend: N = rows of all steps, b = rows of a step, H = hidden, P = width of h, G = 4 * H (gates i, f, g, o).
"""

from __future__ import annotations

from itertools import islice
from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Layer
from gradguard.nn.kernels.gates import ForwardStep
from gradguard.nn.kernels.lstm import AbstractEagerLSTM
from gradguard.nn.kernels.norms import AbstractNorm, GroupNorm, LayerNorm, RMSNorm
from gradguard.nn.kernels.products import bias_sum, write_product
from gradguard.nn.kernels.step_norm import StepNorm, StepNormBack
from gradguard.nn.order import Chunk


class AbstractEagerNormedLSTM(AbstractEagerLSTM):
    """Norms of what x and h give to the gates, and one in the cell. A subclass says which, if not layer norms.

    The cell is carried as it is, unless a subclass says otherwise.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.eps = float(vars(layer.recurrence)["eps"])
        self.narrow = 4 * layer.x.shape[1] <= layer.states[1].shape[1]

    def of_gates(self, gain: Tensor, shift: Tensor | None = None) -> AbstractNorm:
        """The norm of what x gives, or h."""
        return LayerNorm(gain, shift, self.eps, self.wide)

    def of_cell(self) -> AbstractNorm:
        """The norm in the cell."""
        return LayerNorm(self.layer.params["gain_c"], self.layer.params.get("bias_c"), self.eps, self.wide)

    def norms(self) -> tuple[AbstractNorm, AbstractNorm, AbstractNorm]:
        """Of what x gives, but for the biases; of what h gives; and in the cell."""
        params = self.layer.params
        return self.of_gates(params["gain_ih"]), self.of_gates(params["gain_hh"]), self.of_cell()

    def begin(self) -> Tensor:
        """Take the product with x, its norm, and the biases after it."""
        params, order = self.layer.params, self.layer.order
        self.raw_x = self.from_input(self.layer.x)
        self.norm_x = StepNorm(self.of_gates(params["gain_ih"], bias_sum(params, self.wide)))
        self.norm_h, self.norm_c = StepNorm(self.of_gates(params["gain_hh"])), StepNorm(self.of_cell())
        gates = self.norm_x(self.raw_x)
        self.raw_h = self.raw_x if self.narrow else torch.empty_like(self.raw_x)  # written over
        self.raw_h_parts = order.parts(self.raw_h)
        self.weight_t = params["weight_hh"].t()
        return gates

    def from_input(self, x: Tensor) -> Tensor:
        """Take the product with x; of a narrow x it is cheaper to take it again on the way back than to keep it."""
        return (x @ self.layer.params["weight_ih"].t()).to(self.wide)

    def enter(self, own: ForwardStep, h_bP: Tensor) -> None:
        """Add the norm of the product with h."""
        raw = self.raw_h_parts[own.number]
        write_product(raw, h_bP, self.weight_t)
        self.norm_h.add_to(own.z, raw)

    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Take the tanh of the norm of c."""
        torch.tanh(self.norm_c(c_bH), out=own.tanh)

    def kept(self) -> list[Tensor]:
        """What was normed, too, and the statistics."""
        norms = self.norm_x, self.norm_h, self.norm_c
        statistics = [s for norm in norms for s in norm.statistics(self.layer.order)]
        return [*super().kept(), *([] if self.narrow else [self.raw_x]), self.raw_h, *statistics]

    def like_kept(self) -> list[Tensor]:
        """The gates and the tanh; what went into the norms, and their statistics."""
        gates, tanh = super().like_kept()
        normed = [torch.empty_like(gates) for _ in range(1 if self.narrow else 2)]
        return [gates, tanh, *normed, *(s for norm in self.norms() for s in norm.like_statistics(gates.shape[0]))]

    def begin_back(self, kept: list[Tensor], fresh: list[Tensor], chunk: Chunk) -> None:
        """Take up what was kept of a chunk."""
        rest = iter(kept)
        raw_x = self.from_input(self.layer.x[chunk.rows]) if self.narrow else next(rest)
        raws = raw_x, next(rest), self.normed_cells(kept, fresh)
        self.norm_x_back, self.norm_h_back, self.norm_c_back = (
            StepNormBack(norm, raw, list(islice(rest, norm.statistics)), chunk.order)
            for norm, raw in zip(self.norms(), raws, strict=True)
        )
        self.d_normed_c = torch.empty_like(raws[2])
        self.d_normed_parts = chunk.order.parts(self.d_normed_c)

    def normed_cells(self, kept: list[Tensor], fresh: list[Tensor]) -> Tensor:
        """What went into the norm within the cell, [n, H]: the cells themselves."""
        return fresh[1]

    def leave_back(self, number: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the norm."""
        d_normed = torch.mul(d_m, through, out=self.d_normed_parts[number])
        return d_c.add_(self.norm_c_back(number, d_normed))

    def enter_back(self, number: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the norm and the product with h."""
        self.through_h(d_h, self.norm_h_back(number, d_z), self.layer.params["weight_hh"])

    def of_products(self, d_nG: Tensor) -> tuple[Tensor, Tensor]:
        """Go back through the norms of all steps of the chunk."""
        of_x, gain_ih, _ = self.norm_x_back.all_steps(d_nG)
        of_h, gain_hh, _ = self.norm_h_back.all_steps(d_nG)
        _, gain_c, bias_c = self.norm_c_back.all_steps(self.d_normed_c)
        found = {"gain_ih": gain_ih, "gain_hh": gain_hh, "gain_c": gain_c, "bias_c": bias_c}
        for name, grad in found.items():
            if grad is not None and name in self.d_params:
                self.d_params[name] += grad
        return of_x, of_h


@final
class EagerLayerNormLSTM(AbstractEagerNormedLSTM):
    """Layer norms."""


@final
class EagerRMSNormLSTM(AbstractEagerNormedLSTM):
    """RMS norms."""

    def of_gates(self, gain: Tensor, shift: Tensor | None = None) -> AbstractNorm:
        """The norm of what x gives, or h."""
        return RMSNorm(gain, shift, self.eps, self.wide)

    def of_cell(self) -> AbstractNorm:
        """The norm in the cell."""
        return RMSNorm(self.layer.params["gain_c"], None, self.eps, self.wide)


@final
class EagerGroupNormLSTM(AbstractEagerNormedLSTM):
    """Group norms of what goes into the gates, and a layer norm in the cell."""

    def of_gates(self, gain: Tensor, shift: Tensor | None = None) -> AbstractNorm:
        """The norm of what x gives, or h."""
        return GroupNorm(gain, shift, self.eps, self.wide, int(vars(self.layer.recurrence)["num_groups"]))


@final
class EagerNormalizedCellLSTM(AbstractEagerNormedLSTM):
    """Layer norms; the normalised cell is carried."""

    def begin(self) -> Tensor:
        """Keep the cells as they were before the norm, too."""
        self.raw_c = torch.empty_like(self.fresh[1])
        self.raw_c_parts = self.layer.order.parts(self.raw_c)
        return super().begin()

    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Norm the cell, and take the tanh of that."""
        torch.tanh(c_bH.copy_(self.norm_c(self.raw_c_parts[own.number].copy_(c_bH))), out=own.tanh)

    def kept(self) -> list[Tensor]:
        """The cells before the norm, too."""
        return [*super().kept(), self.raw_c]

    def like_kept(self) -> list[Tensor]:
        """The cells before the norm, too."""
        found = super().like_kept()
        return [*found, torch.empty_like(found[1])]

    def normed_cells(self, kept: list[Tensor], fresh: list[Tensor]) -> Tensor:
        """The cells before the norm."""
        return kept[-1]

    def leave_back(self, number: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Everything comes back through the norm."""
        return self.norm_c_back(number, torch.addcmul(d_c, d_m, through, out=self.d_normed_parts[number]))

    def carried_back(self, number: int, d_raw: Tensor) -> Tensor:
        """That of the normalised cell."""
        return self.d_normed_parts[number]
