"""The batch-normalised LSTM in ATen calls.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, T = steps, H = hidden, P = width of h,
G = 4 * H (gates i, f, g, o).
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradguard.functional.recurrence.batch_norm_lstm import many_ranks
from gradguard.nn.kernels.base import Layer
from gradguard.nn.kernels.gates import ForwardStep
from gradguard.nn.kernels.lstm import AbstractEagerLSTM
from gradguard.nn.kernels.products import bias_sum, write_product
from gradguard.nn.kernels.step_batch_norm import StepBatchNorm, StepBatchNormBack, shares, stacked
from gradguard.nn.order import Chunk
from gradguard.nn.step_statistics import NORMS


@final
class EagerBatchNormLSTM(AbstractEagerLSTM):
    """Of a norm, its outcome before the gain is kept, of all rows, and the reciprocal deviations of all steps."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        settings = vars(layer.recurrence)
        self.eps, self.sync, self.training = settings["eps"], settings["sync"], settings["training"]
        self.gains = {norm: layer.params[f"gain_{norm}"].to(self.wide) for norm in NORMS}

    def begin(self) -> Tensor:
        """Take the product with x, its norm, and the biases after it."""
        _, x, (_, c0), params, order, _ = self.layer
        self.norms = []
        for norm in NORMS:
            given = None if self.training else (params[f"mean_{norm}"].to(c0), params[f"var_{norm}"].to(c0))
            self.norms.append(StepBatchNorm(given, self.eps, sync=self.sync))
        self.hat_x = (x @ params["weight_ih"].t()).to(self.wide)
        for part in order.parts(self.hat_x):
            self.norms[0].normalise_(part)
        gates, bias = self.hat_x * self.gains["ih"], bias_sum(params, self.wide)
        self.hat_h, self.hat_c = torch.empty_like(gates), c0.new_empty(len(x), c0.shape[1])
        self.h_parts, self.c_parts = order.parts(self.hat_h), order.parts(self.hat_c)
        self.weight_t, shift = params["weight_hh"].t(), params.get("bias_c")
        self.shift = torch.zeros_like(self.gains["c"]) if shift is None else shift.to(self.wide)
        return gates if bias is None else gates.add_(bias)

    def enter(self, own: ForwardStep, h_bP: Tensor) -> None:
        """Add the norm of the product with h."""
        raw = self.h_parts[own.number]
        write_product(raw, h_bP, self.weight_t)
        own.z.addcmul_(self.norms[1].normalise_(raw), self.gains["hh"])

    def leave(self, own: ForwardStep, c_bH: Tensor) -> None:
        """Take the tanh of the norm of c."""
        hat = self.norms[2].normalise_(self.c_parts[own.number].copy_(c_bH))
        torch.tanh(torch.addcmul(self.shift, hat, self.gains["c"]), out=own.tanh)

    def extras(self) -> list[Tensor]:
        """In training, the statistics that were used."""
        if not self.training:
            return []
        width = self.gains["c"].shape[0]
        columns = [
            stacked(rows, self.hat_x.new_empty(0, norm_width))
            for norm, norm_width in zip(self.norms, (4 * width, 4 * width, width), strict=True)
            for rows in (norm.means, norm.variances)
        ]
        return [torch.cat([*columns, self.norms[0].rows(self.hat_x)], dim=1)]

    def kept(self) -> list[Tensor]:
        """The norms' outcomes, too, and of each step the deviations, and what its mean is to be taken with."""
        hats = [self.hat_x, self.hat_h, self.hat_c]
        scales = [stacked(norm.scales, hat[:0]) for norm, hat in zip(self.norms, hats, strict=True)]
        return [*super().kept(), *hats, *scales, shares(self.norms[0].rows(self.hat_x))]

    def like_kept(self) -> list[Tensor]:
        """The same."""
        gates, tanh = super().like_kept()
        hats = [torch.empty_like(t) for t in (gates, gates, tanh)]
        scales = [t.new_empty(self.steps, t.shape[1]) for t in hats]
        return [gates, tanh, *hats, *scales, gates.new_empty(self.steps, 1)]

    def of_chunk(self, kept: list[Tensor], chunk: Chunk) -> list[Tensor]:
        """Of what there is one row a step of, the steps."""
        steps = slice(chunk.steps.start, chunk.steps.stop)
        return [*(k[chunk.rows] for k in kept[:5]), *(k[steps] for k in kept[5:])]

    def rows_of_chunk(self) -> int:
        """With other processes, all of them: each has rows of its own, and would end its chunks at other steps."""
        return max(len(self.layer.x), 1) if self.sync and many_ranks() else super().rows_of_chunk()

    def begin_back(self, kept: list[Tensor], fresh: list[Tensor], chunk: Chunk) -> None:
        """Take up what was kept of a chunk."""
        self.hats, scales, of_rows = kept[:3], kept[3:6], kept[6] if self.training else None
        self.back = [
            StepBatchNormBack(chunk.order.parts(hat), scale, of_rows, sync=self.sync)
            for hat, scale in zip(self.hats, scales, strict=True)
        ]
        self.d_normed_c, self.d_raw_h = torch.empty_like(self.hats[2]), torch.empty_like(self.hats[1])
        self.d_c_parts, self.d_h_parts = map(chunk.order.parts, (self.d_normed_c, self.d_raw_h))
        self.chunk = chunk

    def leave_back(self, number: int, d_c: Tensor, d_m: Tensor, through: Tensor) -> Tensor:
        """Add what comes back through the norm."""
        d_normed = torch.mul(d_m, through, out=self.d_c_parts[number])
        return d_c.add_(self.back[2](number, d_normed * self.gains["c"]))

    def enter_back(self, number: int, d_z: Tensor, d_h: Tensor) -> None:
        """Go back through the norm and the product with h."""
        raw = self.d_h_parts[number].copy_(self.back[1](number, d_z * self.gains["hh"]))
        self.through_h(d_h, raw, self.layer.params["weight_hh"])

    def of_products(self, d_nG: Tensor) -> tuple[Tensor, Tensor]:
        """Go back through the norm of what x gives; gains and the shift of c."""
        d_raw_x = d_nG * self.gains["ih"]
        for number, part in enumerate(self.chunk.order.parts(d_raw_x)):
            part.copy_(self.back[0](number, part))
        hat_x, hat_h, hat_c = self.hats
        pairs = {"gain_ih": (d_nG, hat_x), "gain_hh": (d_nG, hat_h), "gain_c": (self.d_normed_c, hat_c)}
        for name, (d, hat) in pairs.items():
            if name in self.d_params:
                self.d_params[name] += (d * hat).sum(0)
        self.of_bias("bias_c", self.d_normed_c)
        return d_raw_x, self.d_raw_h
