"""The two loops of every eager kernel, in ATen calls: what a step of a cell does comes from the cell.

What does not depend on the recurrence is done for many steps at once: the product with the input, the derivatives of
the gates, the gradients of the weights. What is left of a step is the product with h, one each way, and a few pointwise
calls. The backward pass goes by chunks of steps that a cache holds, so that what is needed on the way is written to the
same memory again and again: fresh memory has its price.

Shape legend: N = rows of all steps, n = rows of a chunk, b = rows of a step, B = batch, S = width of a state, G = of
what goes into the gates.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradguard.nn.kernels.base import AbstractKernel, Gradients, Layer, Outcome, shares_of_steps
from gradguard.nn.kernels.products import add_product, write_product
from gradguard.nn.kernels.witness import Witness
from gradguard.nn.order import Chunk, resized
from gradguard.nn.recurrence import wide

ENTRIES = 2**19  # of what a chunk's steps write

Steps = Iterable[Any]  # what a cell wants at each step, views mostly, in the order in which the steps come


class Before(NamedTuple):
    """What the steps of a chunk start from.

    Attributes:
        states: [n, S] each.
        h: the first of them as it enters the products, [n, P].
    """

    states: list[Tensor]
    h: Tensor


class AbstractEager(AbstractKernel):
    """A forward and a backward loop. Steps are numbered in the order in which they come, within a chunk from 0 on.

    Attributes:
        blocks: how many times as wide as the widest state is what a step writes in the backward pass.
        sequences: the states at every step, which the next one starts from.
        fresh: the same as the cell computes them, before zoneout; without it the very same tensors.
        witness: looks at the gradients on their way back, where somebody wants to see them.
    """

    blocks: int = 4

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.wide = wide(layer.x.dtype)
        self.witness: Witness | None = None

    @abstractmethod
    def start(self) -> Steps:
        """Begin a forward pass: take the products with x."""

    @abstractmethod
    def step(self, own: Any, h: Tensor, old: Sequence[Tensor], new: Sequence[Tensor]) -> None:
        """Take a step.

        Args:
            own: what :meth:`start` gave for it.
            h: as it enters the products, [b, P].
            old: the states before, [b, S] each.
            new: the states after, to be written.
        """

    @abstractmethod
    def kept(self) -> list[Tensor]:
        """What the backward pass wants beside the states, [N, ...] each."""

    @abstractmethod
    def like_kept(self) -> list[Tensor]:
        """Empty tensors with the shapes and dtypes of what is kept."""

    def extras(self) -> list[Tensor]:
        """What the recurrence gives beside its states."""
        return []

    def rows_of_chunk(self) -> int:
        """How many rows the backward pass takes at once."""
        return ENTRIES // (self.blocks * max(s.shape[1] for s in self.layer.states))

    def of_chunk(self, kept: list[Tensor], chunk: Chunk) -> list[Tensor]:
        """Take a chunk's part of what was kept."""
        return [k[chunk.rows] for k in kept]

    @abstractmethod
    def start_back(self, kept: list[Tensor], fresh: list[Tensor], before: Before, chunk: Chunk) -> Steps:
        """Begin the backward pass of a chunk.

        Args:
            kept: the chunk's rows of what was kept.
            fresh: of the states as the cell computed them.
            before: what its steps start from.
            chunk: its steps.
        """

    @abstractmethod
    def step_back(self, number: int, own: Any, d: Sequence[Tensor]) -> None:
        """Take a step back.

        Args:
            number: of the step, within the chunk.
            own: what :meth:`start_back` gave for it.
            d: gradients of the states after the step, [b, S] each, over which those of the states before are written.
        """

    @abstractmethod
    def gates(self, outcome: Outcome) -> Tensor:
        """The gates at all steps, as they were open, [N, G, H] in the order of the recurrence's."""

    @abstractmethod
    def sums_back(self) -> Tensor:
        """Gradients of the sums that went into the gates, at the steps of the chunk, [n, G, H], before it ends."""

    @abstractmethod
    def finish_back(self, before: Before, chunk: Chunk) -> None:
        """End a chunk: add up what it gives to the gradients of the parameters, and write those of its x."""

    def saved(self) -> list[Tensor]:
        """What is kept, and the states before zoneout."""
        rows, zones = self.layer.x.shape[0], zip(self.layer.states, self.layer.noise.zones, strict=True)
        return [*self.like_kept(), *(s.new_empty(rows, s.shape[1]) for s, zone in zones if zone is not None)]

    def forward(self, *, save: bool) -> Outcome:
        """Run all steps."""
        _, x, states, _, order, (drop, zones, _) = self.layer
        self.sequences = [s.new_empty(len(x), s.shape[1]) for s in states]
        self.fresh = [s if z is None else torch.empty_like(s) for s, z in zip(self.sequences, zones, strict=True)]
        written = [zip(*map(order.parts, each), strict=True) for each in (self.fresh, self.sequences)]
        now, even, zoned = states, order.even, any(zone is not None for zone in zones)
        for own, new, after, share in zip(self.start(), *written, shares_of_steps(zones, order), strict=True):
            rows = len(new[0])
            if not even:
                now = tuple(resized(s, rows, first) for s, first in zip(now, states, strict=True))
            self.step(own, now[0] if drop is None else now[0] * drop[:rows], now, new)
            if zoned:
                for carried, computed, before, zone in zip(after, new, now, share, strict=True):
                    if zone is not None:
                        torch.lerp(computed, before, zone, out=carried)
            now = after
        if not save:
            return Outcome(self.sequences, [], self.extras())
        zoned_states = (f for f, zone in zip(self.fresh, zones, strict=True) if zone is not None)
        return Outcome(self.sequences, [*self.kept(), *zoned_states], self.extras())

    def backward(
        self,
        outcome: Outcome,
        of_sequences: Sequence[Tensor | None],
        of_finals: Sequence[Tensor | None],
        needed: frozenset[str],
    ) -> Gradients:
        """Run all steps back, chunk by chunk."""
        _, x, states, params, order, (drop, zones, _) = self.layer
        self.d_x = torch.empty_like(x) if "x" in needed else None
        self.d_params = {name: torch.zeros_like(params[name], dtype=self.wide) for name in needed - {"x"}}
        d = [
            torch.zeros(s.shape, dtype=self.wide, device=x.device) if of is None else of.to(self.wide, copy=True)
            for s, of in zip(states, of_finals, strict=True)
        ]
        kept = outcome.saved[: len(self.like_kept())]
        rest = iter(outcome.saved[len(kept) :])
        fresh = [s if zone is None else next(rest) for s, zone in zip(outcome.sequences, zones, strict=True)]
        starts = [order.before(*pair) for pair in zip(outcome.sequences, states, strict=True)]
        for chunk in order.chunks(self.rows_of_chunk()):
            steps = slice(chunk.steps.start, chunk.steps.stop)
            in_time = [start[steps][:: -1 if order.reverse else 1] for start in starts]
            first = torch.cat(in_time[0])
            h = first if drop is None else torch.cat([part * drop[: len(part)] for part in in_time[0]])
            before = Before([first, *map(torch.cat, in_time[1:])], h)
            own = self.start_back(self.of_chunk(kept, chunk), [f[chunk.rows] for f in fresh], before, chunk)
            if self.witness is not None:
                self.witness.begin(chunk, len(first))
            self._steps_back(list(own), of_sequences, d, chunk)
            if self.witness is not None:
                self.witness.end(chunk, self.sums_back())
            self.finish_back(before, chunk)
        of_params = {name: grad.to(params[name].dtype) for name, grad in self.d_params.items()}
        return Gradients(self.d_x, [grad.to(s.dtype) for grad, s in zip(d, states, strict=True)], of_params)

    def _steps_back(self, own: list[Any], of_sequences: Sequence[Tensor | None], d: list[Tensor], chunk: Chunk) -> None:
        """Run the steps of a chunk back."""
        _, _, _, _, order, (_, zones, clip) = self.layer
        parts = chunk.order.parts
        into = [(i, parts(s[chunk.rows])) for i, s in enumerate(of_sequences) if s is not None]
        shares = [
            (i, parts(zone[chunk.rows]) if isinstance(zone, Tensor) else (zone,) * len(own))
            for i, zone in enumerate(zones)
            if zone is not None
        ]
        rows = [len(part) for part in parts(self.layer.x[chunk.rows])]
        for number in range(len(own) - 1, -1, -1):
            now = d if order.even else [each[: rows[number]] for each in d]
            for i, grads in into:
                now[i] += grads[number]
            if self.witness is not None:
                self.witness.pass_by(number, 0, now[0])
            stayed = [(i, now[i] * share[number]) for i, share in shares]
            for i, grad in stayed:
                now[i] -= grad
            self.step_back(number, own[number], now)
            for i, grad in stayed:
                now[i] += grad
            if clip is not None:
                now[0].clamp_(-clip, clip)

    def through_h(self, d_h: Tensor, d_z: Tensor, weight: Tensor, *, add: bool = False) -> None:
        """Write the gradient of h before a step, from that of the product ``h @ weight.t()``; or add it to it."""
        drop = self.layer.noise.drop_h
        if drop is not None:
            found = (d_z.to(weight.dtype) @ weight).to(d_h.dtype)
            factors = drop[: len(d_h)].to(d_h.dtype)
            _ = d_h.addcmul_(found, factors) if add else torch.mul(found, factors, out=d_h)
        elif add:
            add_product(d_h, d_z, weight)
        else:
            write_product(d_h, d_z, weight)

    def of_weight(self, name: str, d_nG: Tensor, into_nI: Tensor, rows: slice = slice(None)) -> None:
        """Add to the gradient of a weight, or of some of its rows: that of ``into @ weight.t()`` is given."""
        if name in self.d_params:
            into = into_nI if into_nI.dtype == self.layer.x.dtype else into_nI.to(self.layer.x.dtype)
            add_product(self.d_params[name][rows], d_nG.to(into.dtype).t(), into)

    def of_bias(self, name: str, d_nG: Tensor, rows: slice = slice(None)) -> None:
        """Add to the gradient of a bias, or of some of its entries."""
        if name in self.d_params:
            self.d_params[name][rows] += d_nG.sum(0)

    def of_input(self, d_nG: Tensor, weight: Tensor, chunk: Chunk, *, add: bool = False) -> None:
        """Write the gradient of the chunk's x, from that of ``x @ weight.t()``; or add it to it."""
        if self.d_x is not None:
            (add_product if add else write_product)(self.d_x[chunk.rows], d_nG.to(weight.dtype), weight)
