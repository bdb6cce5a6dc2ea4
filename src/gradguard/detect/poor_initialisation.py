"""Weights that a network does not start well from: seen in the first steps, before harm is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median_low
from typing import final

import torch

from gradguard.detect.activations import Activations, Signal
from gradguard.detect.base import AbstractDetector, PerPlace, told
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.profile import trend
from gradguard.detect.starts import EVIDENCE, LOST, MEANS, Fault, leaps, zero_layers, zero_weights
from gradguard.detect.symptom import Symptom

MOST = 0.75  # of the loss, that comes of the outputs' size
NOISE = 1e-5  # of the largest output, that is nothing but rounding
LINEAR = 0.1  # by which the share of the loss that comes of the outputs' size may differ from 1, however large they are
TOGETHER = 0.05  # share of what a layer's units do that they don't do together, where its units are alike


@final
class PoorInitialisation(AbstractDetector):
    r"""The signal or the gradient does not get through the network as it was initialised.

    Rule, at each of the first ``samples`` sampled steps (1, 2 and 3 in a guard), over the layers with a weight in the
    order of their calls, the last one left out for units and signals:

    - *alike*: the units of a layer, or the columns of a table that is looked up, differ by less than ``alike`` of its
      output's size; or, in more than half of the
      layers, all but a twentieth of what the units do they do together. Where that holds for fewer than half of the
      layers, those of zero weights do not count, which will scale or gate others;
    - *blind*: in the last two thirds of the layers, and at least the last three, no output differs from input to input
      by more than ``blind`` of its size; layers of zero weights are left out, unless they are half of all. Embeddings
      are left out, too: where there is one among the last, the others' limit is the square of ``blind``;
    - *shut*: a layer gives nothing but zeros, and gets a gradient of exactly zero: one of two layers in a row that
      begin at 0 could get away from there, both together can't;
    - *zero*: the same by the weights alone, wherever they stand: two or more are zero, and so are their gradients;
    - *loud*: the entries of the last layer's output are larger than ``loud``, and were they smaller by a little, the
      loss would fall in proportion, or nearly (its derivative by the logarithm of their size is three quarters of the
      loss or more): a network that is sure of what it can't know yet, and has to unlearn it first. An output that is
      large and right, as that of a network that was trained before, does not make its loss. Whatever its size, where
      the loss falls exactly in proportion (by a tenth): a cross entropy does that of logits that are far too large,
      which may be products of this output with something else;
    - *faint, large*: the median of the hidden layers' outputs is outside of ``usual``;
    - *shrinks, grows*: a line through :math:`\log_{10}` of the outputs' root mean squares moves by ``forward`` powers
      of ten or more and explains ``min_r2`` of their variance;
    - *fades, explodes*: the same of the gradients by the outputs, with ``fading`` where they shrink on their way back
      (in plain nets that still train they do, by 10^4 over ten layers) and ``exploding`` where they grow.

    Critical where units are alike or the end is blind: then nothing is learnt. It is over once the condition no longer
    holds; still a warning where units were alike, the end blind, layers shut or weights zero, the outputs loud or all
    layers faint or large at all of the first samples, since what such a start costs is not always made good.

    What it can't see: layers that are not called as modules, or inside a compiled one; lines through fewer than
    ``min_layers`` layers, unless there are three and the size changes tenfold from each to the next; networks that are
    resumed or fine-tuned, for which the first steps are not the first ones. A zero-initialised branch or head is no
    fault, and not taken for one.

    Source: Glorot and Bengio 2010; He et al. 2015; Schoenholz et al. 2017, arXiv 1611.01232 (how deep a signal gets).
    """

    def __init__(
        self,
        *,
        alike: float = 1e-3,
        blind: float = 1e-2,
        forward: float = 2.0,
        fading: float = 6.0,
        exploding: float = 3.0,
        loud: float = 5.0,
        usual: tuple[float, float] = (1e-3, 10.0),
        min_r2: float = 0.7,
        min_layers: int = 4,
        samples: int = 3,
    ) -> None:
        limits = (alike, blind, forward, fading, exploding, loud)
        if not min(limits) > 0 or not 0 <= usual[0] < 1 < usual[1] or min_layers < 3 or samples < 1:
            raise ValueError(
                "PoorInitialisation needs alike, blind, forward, fading, exploding, loud > 0, usual around 1, "
                f"min_layers >= 3 and samples >= 1, got {limits}, {usual=}, {min_layers=}, {samples=}."
            )
        self.alike, self.blind, self.forward, self.fading, self.exploding, self.loud = limits
        self.min_r2, self.min_layers, self.samples, self.usual = min_r2, min_layers, samples, usual
        self.persistence = PerPlace(samples, share=1.0)
        self.optimizer = ""
        self.looked = self.weighed = 0  # samples of what the layers did, and of the weights
        self.zero: frozenset[str] | None = None  # layers whose weights were 0 at the first sample
        self.first: dict[str, Fault] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones; one that nothing was seen of does not count."""
        self.optimizer = block.layout.optimizer
        for row, step in enumerate(block.samples.steps.tolist()):
            self.weighed += 1
            self._note("zero", step, zero_weights(block, row), is_early=self.weighed <= self.samples)
        for sample in block.activations:
            if not sample.signals:
                continue
            self.looked += 1
            if self.zero is None:
                self.zero = zero_layers(block, sample.step)
            found = self._faults(sample)
            at = (block.steps == sample.step) & block.has_loss
            if at.any():
                found |= self._loud(sample.signals, float(block.losses[at][-1]))
            for kind in (kind for kind in MEANS if kind != "zero"):
                self._note(kind, sample.step, found.get(kind), is_early=self.looked <= self.samples)

    def _note(self, kind: str, step: int, fault: Fault | None, *, is_early: bool) -> None:
        """Take in what was seen of a kind of fault: at a first sample, or later where it was there at those."""
        if fault is not None:
            self.first.setdefault(kind, fault)
        if is_early or self.persistence.spell(kind) is not None:
            self.persistence.observe(kind, step, fault is not None)

    def _faults(self, sample: Activations) -> dict[str, Fault]:
        signals = [s for s in sample.signals if math.isfinite(s.rms)]
        found = self._alike([s for s in signals if s.embeds or s is not signals[-1]])
        zero = self.zero or frozenset()
        moving = [s for s in signals if s.rms > 0 and s.layer not in zero]
        moving = moving if 2 * len(moving) > len(signals) else signals
        last = moving[-max(3, -(-2 * len(moving) // 3)) :]
        loudest = max((s.rms for s in last), default=0.0)
        last = [s for s in last if not 0 < s.rms < NOISE * loudest]
        limit = self.blind
        if len({s.embeds for s in last}) == 2:  # what is looked up differs, whatever comes of it
            last, limit = [s for s in last if not s.embeds and s.layer not in zero], self.blind**2
        if len(signals) >= 2 and last:
            varies = max(0.0 if s.rms == 0 else math.inf if math.isnan(s.varies) else s.varies for s in last)
            if varies < limit:
                found["blind"] = Fault(tuple(s.layer for s in last), varies, math.nan)
        shut = tuple(s.layer for s in signals if s.rms == 0 and s.grad_rms == 0)
        if shut:
            found["shut"] = Fault(shut, float(len(shut)), math.nan)
        sized = [s for s in signals if not s.embeds]
        found |= self._size(sized[:-1] or sized)
        hidden = sized[:-1] if len(sized) > self.min_layers else sized
        found |= self._line([(s, s.rms) for s in hidden], ("grows", self.forward), ("shrinks", self.forward))
        found |= self._line([(s, s.grad_rms) for s in sized], ("fades", self.fading), ("explodes", self.exploding))
        return found

    def _alike(self, signals: Sequence[Signal]) -> dict[str, Fault]:
        """Find layers whose units say the same, or do all they do together."""
        there = [s for s in signals if s.rms > 0]
        alike = [s for s in there if s.distinct < self.alike]
        few = 2 * len(alike) < len(signals)
        alike = [s for s in alike if s.layer not in (self.zero or ())] if few else alike
        if alike:
            return {"alike": Fault(tuple(s.layer for s in alike), max(s.distinct for s in alike), math.nan)}
        together = [s for s in there if s.apart < TOGETHER and s.varies > self.alike]
        if 2 * len(together) <= len(signals):
            return {}
        return {"alike": Fault(tuple(s.layer for s in together), max(s.apart for s in together), math.nan)}

    def _size(self, signals: Sequence[Signal]) -> dict[str, Fault]:
        """Find layers most of which give what is far too small, or far too large."""
        there = [s for s in signals if s.rms > 0]
        usual = median_low([s.rms for s in there]) if there else 1.0
        if self.usual[0] <= usual <= self.usual[1]:
            return {}
        return {"faint" if usual < 1 else "large": Fault(tuple(s.layer for s in there), usual, math.nan)}

    def _loud(self, signals: Sequence[Signal], loss: float) -> dict[str, Fault]:
        """Find an output whose size is what the loss comes of."""
        last = signals[-1]
        share = last.pull / loss if loss > 0 else math.nan
        if not ((last.rms >= self.loud and share >= MOST) or abs(share - 1) < LINEAR):
            return {}
        return {"loud": Fault((last.layer,), last.rms, loss)}

    def _line(
        self, sizes: Sequence[tuple[Signal, float]], up: tuple[str, float], down: tuple[str, float]
    ) -> dict[str, Fault]:
        """Find the steady rise or fall of a size over depth."""
        there = [(s, size) for s, size in sizes if size > 0 and math.isfinite(size)]
        if len(there) < self.min_layers and not leaps([size for _, size in there]):
            return {}
        line = trend(torch.tensor([[size for _, size in there]], dtype=torch.float64))
        decades, r2 = float(line.decades), float(line.r2)
        kind, limit = up if decades > 0 else down
        if abs(decades) < limit or not r2 >= self.min_r2:
            return {}
        factor = 10 ** (abs(decades) / (len(there) - 1))
        return {kind: Fault(tuple(s.layer for s, _ in there), abs(decades), factor)}

    def findings(self) -> tuple[Finding, ...]:
        """Say what is wrong with the start, in one finding."""
        spells = self.persistence.spells()
        if not spells:
            return ()
        chosen, span = told(spells)
        faults = {kind: self.first[kind] for kind in MEANS if kind in chosen}
        severity = Severity.WARNING if {"alike", "blind"}.isdisjoint(faults) else Severity.CRITICAL
        over = Severity.INFO if LOST.isdisjoint(faults) else Severity.WARNING
        reasons = "; ".join(MEANS[kind].format(size=fault.size, factor=fault.factor) for kind, fault in faults.items())
        return (
            Finding(
                Symptom.POOR_INITIALISATION,
                severity if span[2] else over,
                tuple(dict.fromkeys(layer for fault in faults.values() for layer in fault.where)),
                self.optimizer,
                *span,
                {EVIDENCE[kind]: fault.size for kind, fault in faults.items()},
                f"At the start, {reasons}.",
            ),
        )
