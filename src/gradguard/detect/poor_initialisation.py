"""Weights that a network does not start well from: seen in the first steps, before harm is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, final

import torch

from gradguard.detect.activations import Activations, Signal
from gradguard.detect.base import AbstractDetector, PerPlace, told
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.profile import trend
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom

CONSTANT = 1e-6  # of its size, by which the output of a layer of zero weights differs from input to input
_MEANS = {
    "alike": "all units of a layer give the same, get the same gradient and stay the same: each layer is one unit wide",
    "blind": "what comes out of the last layers hardly depends on what goes in ({size:.1e} of it does)",
    "shrinks": "the signal shrinks by a factor of {factor:.2g} per layer on its way forward",
    "grows": "the signal grows by a factor of {factor:.2g} per layer on its way forward",
    "fades": "the gradient shrinks by a factor of {factor:.2g} per layer on its way back",
    "explodes": "the gradient grows by a factor of {factor:.2g} per layer on its way back",
}


_EVIDENCE = {
    "alike": "difference between units, over the output",
    "blind": "share of the output that depends on the input",
    "shrinks": "powers of ten lost on the way forward",
    "grows": "powers of ten gained on the way forward",
    "fades": "powers of ten lost on the way back",
    "explodes": "powers of ten gained on the way back",
}


@saved
class _Fault(NamedTuple):
    """What was wrong at a sample."""

    where: tuple[str, ...]
    size: float
    factor: float


@final
class PoorInitialisation(AbstractDetector):
    r"""The signal or the gradient does not get through the network as it was initialised.

    Rule, at each of the first ``samples`` sampled steps (1, 2 and 3 in a guard), over the layers with a weight in the
    order of their calls, the last one left out for units and signals:

    - *alike*: the units of a layer differ by less than ``alike`` of its output's size; where that holds for fewer than
      half of the layers, those do not count whose output is the same for all inputs, as that of a layer of zero weights
      is that will scale or gate others;
    - *blind*: in the last two thirds of the layers, and at least the last three, no output differs from input to input
      by more than ``blind`` of its size; layers of zero weights are left out, unless they are half of all;
    - *shrinks, grows*: a line through :math:`\log_{10}` of the outputs' root mean squares moves by ``forward`` powers
      of ten or more and explains ``min_r2`` of their variance;
    - *fades, explodes*: the same of the gradients by the outputs, with ``fading`` where they shrink on their way back
      (in plain nets that still train they do, by 10^4 over ten layers) and ``exploding`` where they grow.

    Critical where units are alike or the end is blind: then nothing is learnt. It is over once the condition no longer
    holds.

    What it can't see: layers that are not called as modules, or inside a compiled one; lines through fewer than
    ``min_layers`` layers; networks that are resumed or fine-tuned, for which the first steps are not the first ones. A
    zero-initialised branch or head is no fault, and not taken for one.

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
        min_r2: float = 0.7,
        min_layers: int = 4,
        samples: int = 3,
    ) -> None:
        limits = (alike, blind, forward, fading, exploding)
        if not min(limits) > 0 or min_layers < 3 or samples < 1:
            raise ValueError(
                "PoorInitialisation needs alike, blind, forward, fading, exploding > 0, min_layers >= 3, samples >= 1, "
                f"got {limits}, {min_layers=}, {samples=}."
            )
        self.alike, self.blind, self.forward, self.fading, self.exploding = limits
        self.min_r2, self.min_layers, self.samples = min_r2, min_layers, samples
        self.persistence = PerPlace(samples, share=1.0)
        self.optimizer = ""
        self.looked = 0
        self.first: dict[str, _Fault] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones; one that nothing was seen of does not count."""
        self.optimizer = block.layout.optimizer
        for sample in block.activations:
            if not sample.signals:
                continue
            self.looked += 1
            found = self._faults(sample)
            for kind in _MEANS:
                if self.looked <= self.samples or self.persistence.spell(kind) is not None:
                    self.persistence.observe(kind, sample.step, kind in found)
            for kind, fault in found.items():
                self.first.setdefault(kind, fault)

    def _faults(self, sample: Activations) -> dict[str, _Fault]:
        signals = [s for s in sample.signals if math.isfinite(s.rms)]
        found: dict[str, _Fault] = {}
        alike = [s for s in signals[:-1] if s.rms > 0 and s.distinct < self.alike]
        few = 2 * len(alike) < len(signals) - 1
        alike = [s for s in alike if s.varies > CONSTANT] if few else alike
        if alike:
            found["alike"] = _Fault(tuple(s.layer for s in alike), max(s.distinct for s in alike), math.nan)
        moving = [s for s in signals if s.rms > 0 and not s.varies <= CONSTANT]
        moving = moving if 2 * len(moving) > len(signals) else signals
        last = moving[-max(3, -(-2 * len(moving) // 3)) :]
        if len(signals) >= 2:
            varies = max(0.0 if s.rms == 0 else math.inf if math.isnan(s.varies) else s.varies for s in last)
            if varies < self.blind:
                found["blind"] = _Fault(tuple(s.layer for s in last), varies, math.nan)
        sized = [s for s in signals if not s.embeds]
        found |= self._line([(s, s.rms) for s in sized[:-1]], ("grows", self.forward), ("shrinks", self.forward))
        found |= self._line([(s, s.grad_rms) for s in sized], ("fades", self.fading), ("explodes", self.exploding))
        return found

    def _line(
        self, sizes: Sequence[tuple[Signal, float]], up: tuple[str, float], down: tuple[str, float]
    ) -> dict[str, _Fault]:
        """Find the steady rise or fall of a size over depth."""
        there = [(s, size) for s, size in sizes if size > 0 and math.isfinite(size)]
        if len(there) < self.min_layers:
            return {}
        line = trend(torch.tensor([[size for _, size in there]], dtype=torch.float64))
        decades, r2 = float(line.decades), float(line.r2)
        kind, limit = up if decades > 0 else down
        if abs(decades) < limit or not r2 >= self.min_r2:
            return {}
        factor = 10 ** (abs(decades) / (len(there) - 1))
        return {kind: _Fault(tuple(s.layer for s, _ in there), abs(decades), factor)}

    def findings(self) -> tuple[Finding, ...]:
        """Say what is wrong with the start, in one finding."""
        spells = self.persistence.spells()
        if not spells:
            return ()
        chosen, span = told(spells)
        faults = {kind: self.first[kind] for kind in _MEANS if kind in chosen}
        is_lost = not {"alike", "blind"}.isdisjoint(faults)
        severity = Severity.CRITICAL if is_lost else Severity.WARNING
        reasons = "; ".join(_MEANS[kind].format(size=fault.size, factor=fault.factor) for kind, fault in faults.items())
        return (
            Finding(
                Symptom.POOR_INITIALISATION,
                severity if span[2] else Severity.INFO,
                tuple(dict.fromkeys(layer for fault in faults.values() for layer in fault.where)),
                self.optimizer,
                *span,
                {_EVIDENCE[kind]: fault.size for kind, fault in faults.items()},
                f"At the start, {reasons}.",
            ),
        )
