"""The layer-normalised GRU in ATen calls.

r and z are normed together, and what goes into u and n alone: of x and of h there are two products and two norms each.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, H = hidden; four blocks: r, z, u, n.
"""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from gradguard.nn.kernels.base import Layer
from gradguard.nn.kernels.eager import Before, Steps
from gradguard.nn.kernels.gru import AbstractEagerGRU, GRUBack, GRUStep
from gradguard.nn.kernels.norms import LayerNorm
from gradguard.nn.kernels.products import write_product
from gradguard.nn.kernels.step_norm import StepNorm, StepNormBack
from gradguard.nn.order import Chunk

Shifts = tuple[Tensor | None, Tensor | None]


@final
class EagerLayerNormGRU(AbstractEagerGRU):
    """See the head of this file."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.eps, width = float(vars(layer.recurrence)["eps"]), layer.states[0].shape[1]
        self.rows = slice(None, 2 * width), slice(2 * width, None)  # of weights, biases and gains

    def norms(self, name: str, shifts: Shifts = (None, None)) -> list[LayerNorm]:
        """Of the gates and of the candidate, with the gain of that name."""
        gain, both = self.layer.params[name], zip(self.rows, shifts, strict=True)
        return [LayerNorm(gain[rows], shift, self.eps, self.wide) for rows, shift in both]

    def shifts(self) -> tuple[Shifts, Shifts]:
        """The biases, as shifts of the norms: those of r and z stand with x, and that of u with h."""
        params = self.layer.params
        if "bias_ih" not in params:
            return (None, None), (None, None)
        (x_r_z, x_n), (h_r_z, h_n) = ([params[n].to(self.wide)[r] for r in self.rows] for n in ("bias_ih", "bias_hh"))
        return (x_r_z + h_r_z, x_n), (None, h_n)

    def begin(self, blocks_N4H: Tensor) -> None:
        """Take the products with x, and their norms."""
        x, params, width = self.layer.x, self.layer.params, blocks_N4H.shape[1] // 4
        of_x, of_h = self.shifts()
        self.raws_x = [(x @ params["weight_ih"][rows].t()).to(self.wide) for rows in self.rows]
        self.raws_h = [torch.empty_like(raw) for raw in self.raws_x]
        self.norms_x = [StepNorm(norm) for norm in self.norms("gain_ih", of_x)]
        self.norms_h = [StepNorm(norm) for norm in self.norms("gain_hh", of_h)]
        blocks_N4H[:, : 2 * width] = self.norms_x[0](self.raws_x[0])
        blocks_N4H[:, 3 * width :] = self.norms_x[1](self.raws_x[1])
        self.raw_parts = list(zip(*map(self.layer.order.parts, self.raws_h), strict=True))
        self.weights_t = [params["weight_hh"][rows].t() for rows in self.rows]

    def enter(self, own: GRUStep, h_bH: Tensor) -> None:
        """Take the products with h, and their norms."""
        raw_r_z, raw_u = self.raw_parts[own.number]
        write_product(raw_r_z, h_bH, self.weights_t[0])
        write_product(raw_u, h_bH, self.weights_t[1])
        self.norms_h[0].add_to(own.r_z, raw_r_z)
        own.u.copy_(self.norms_h[1](raw_u))

    def kept(self) -> list[Tensor]:
        """What was normed, too, and the statistics."""
        norms = *self.norms_x, *self.norms_h
        statistics = [s for norm in norms for s in norm.statistics(self.layer.order)]
        return [*super().kept(), *self.raws_x, *self.raws_h, *statistics]

    def like_kept(self) -> list[Tensor]:
        """The four blocks; what went into the norms, and their statistics."""
        (blocks,) = super().like_kept()
        (rows, width), norms = blocks.shape, [*self.norms("gain_ih"), *self.norms("gain_hh")]
        raws = [blocks.new_empty(rows, n * width // 4) for n in (2, 1, 2, 1)]
        return [blocks, *raws, *(s for norm in norms for s in norm.like_statistics(rows))]

    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Take up what was kept of a chunk."""
        _, *raws = kept[:5]
        norms, pairs = [*self.norms("gain_ih"), *self.norms("gain_hh")], zip(kept[5::2], kept[6::2], strict=True)
        backs = [StepNormBack(*each, chunk.order) for each in zip(norms, raws, pairs, strict=True)]
        self.x_back, self.h_back = backs[:2], backs[2:]
        self.weights = [self.layer.params["weight_hh"][rows] for rows in self.rows]
        steps, width = super().start_back(kept, fresh, before, chunk), before.h.shape[1]
        r_z, u = slice(None, 2 * width), slice(2 * width, 3 * width)
        self.d_parts = list(zip(*(chunk.order.parts(self.d_n4H[:, part]) for part in (r_z, u)), strict=True))
        return steps

    def enter_back(self, number: int, own: GRUBack, d_h: Tensor) -> None:
        """Go back through the norms and the products with h."""
        for back, d_raw, weight in zip(self.h_back, self.d_parts[number], self.weights, strict=True):
            self.through_h(d_h, back(number, d_raw), weight, add=True)

    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """Add up the gradients of the parameters."""
        x, width, weight = self.layer.x[chunk.rows], self.d_n4H.shape[1] // 4, self.layer.params["weight_ih"]
        d_r_z, d_u, d_n = self.d_n4H.split([2 * width, width, width], dim=1)
        for i, (rows, d_x, d_h) in enumerate(zip(self.rows, (d_r_z, d_n), (d_r_z, d_u), strict=True)):
            of_x = self.of_norm("gain_ih", self.x_back[i], d_x, rows)
            of_h = self.of_norm("gain_hh", self.h_back[i], d_h, rows)
            self.of_bias("bias_ih", d_x, rows)
            self.of_bias("bias_hh", d_h, rows)
            self.of_weight("weight_ih", of_x, x, rows)
            self.of_weight("weight_hh", of_h, before.h, rows)
            self.of_input(of_x, weight[rows], chunk, add=i > 0)

    def of_norm(self, name: str, back: StepNormBack, d_nS: Tensor, rows: slice) -> Tensor:
        """Go back through a norm of all steps of the chunk; add to its part of a gain's gradient."""
        of_raw, of_gain, _ = back.all_steps(d_nS)
        if name in self.d_params:
            self.d_params[name][rows] += of_gain
        return of_raw
