"""Steps that are too large or too small for the weights that they change."""

from __future__ import annotations

import math
from typing import final

import torch

from gradguard.detect.base import AbstractDetector, PerParameter, Persistence, Spell
from gradguard.detect.block import Block, Role
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class UpdateTooLarge(AbstractDetector):
    """One optimizer step changes the weights by a large share of themselves.

    Rule: the median over all weight matrices of update norm / weight norm, on sampled steps. Critical where it
    reaches ``breaking`` at two samples on end after step 1; a warning where it reaches ``ratio`` at ``patience``
    samples on end after ``warmup`` steps. About 1e-3 is usual; the first steps of Adam on small weights exceed 0.1 in
    many runs that train well, hence the warm-up.

    What it can't see: what happens between samples; a single layer that moves too fast among many that do not.

    Args:
        ratio: limit for lasting updates, > 0.
        breaking: limit at which two samples are enough, > ``ratio``.
        warmup: steps before the lower limit counts.
        patience: samples on end that it has to hold, >= 1.

    Source: the band [1e-4, 1e-1] is TheDeepChecker's.
    """

    def __init__(self, ratio: float = 0.1, *, breaking: float = 1.0, warmup: int = 10, patience: int = 4) -> None:
        if not 0 < ratio < breaking or warmup < 0:
            raise ValueError(
                f"UpdateTooLarge needs 0 < ratio < breaking and warmup >= 0, got {ratio=}, {breaking=}, {warmup=}."
            )
        self.ratio, self.breaking, self.warmup = ratio, breaking, warmup
        self.lasting = Persistence(patience, share=1.0)
        self.breaks = Persistence(2, share=1.0)
        self.optimizer = ""
        self.largest = 0.0
        self.largest_by_weight: dict[str, float] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        self.optimizer = block.layout.optimizer
        weights = [i for i, role in enumerate(block.layout.roles) if role is Role.WEIGHT]
        if not weights:
            return
        for step, row in zip(block.samples.steps.tolist(), block.samples.update_ratios[:, weights], strict=True):
            known = row[row.isfinite()]
            if step == 1 or not len(known):
                continue
            median = float(known.median())
            self.breaks.observe(step, median >= self.breaking)
            if step > self.warmup:
                self.lasting.observe(step, median >= self.ratio)
            if median > self.largest:
                self.largest = median
                self.largest_by_weight = {
                    block.layout.names[i]: float(value) for i, value in zip(weights, row, strict=True)
                }

    def findings(self) -> tuple[Finding, ...]:
        """Say by how much the weights move at each step."""
        spells = [spell for spell in (self.breaks.spell, self.lasting.spell) if spell is not None]
        if not spells:
            return ()
        spell = Spell(
            min(s.first_step for s in spells), max(s.last_step for s in spells), any(s.active for s in spells)
        )
        ordered = sorted(self.largest_by_weight, key=lambda name: -_or_zero(self.largest_by_weight[name]))
        finding = Finding(
            Symptom.UPDATE_TOO_LARGE,
            Severity.CRITICAL if self.breaks.spell is not None else Severity.WARNING,
            tuple(name for name in ordered if _or_zero(self.largest_by_weight[name]) >= self.ratio),
            self.optimizer,
            spell.first_step,
            spell.last_step,
            spell.active,
            {"median update/weight": self.largest, "usual": "1e-4 to 1e-2", "by weight": self.largest_by_weight},
            f"A single step changes the median weight matrix by up to {self.largest:.2g} of its own norm: what was "
            "learnt so far is overwritten.",
        )
        return (finding,)


@final
class UpdateTooSmall(AbstractDetector):
    """A weight matrix gets gradients and has all the same not moved since the beginning.

    Rule: update norm / weight norm stayed below ``ratio`` at every sample so far, over at least ``patience`` samples
    and ``min_steps`` steps at a learning rate above zero. Relative to its own past on purpose: a converged run or a
    schedule that ends at zero has tiny updates, too, but it moved before.

    What it can't see: a weight that stops moving later on.

    Args:
        ratio: limit, > 0.
        patience: samples, >= 1.
        min_steps: steps between the first and the last of them.
    """

    def __init__(self, ratio: float = 1e-7, *, patience: int = 5, min_steps: int = 90) -> None:
        if not ratio > 0 or patience < 1 or min_steps < 0:
            raise ValueError(
                f"UpdateTooSmall needs ratio > 0, patience >= 1 and min_steps >= 0, got {ratio=}, {patience=}, "
                f"{min_steps=}."
            )
        self.ratio, self.patience, self.min_steps = ratio, patience, min_steps
        self.optimizer = ""
        self.largest = PerParameter(0.0)
        self.samples = PerParameter(0.0)
        self.first, self.last = PerParameter(math.nan), PerParameter(math.nan)
        self.weights: tuple[str, ...] = ()
        self.reported: dict[str, Spell] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        layout, samples = block.layout, block.samples
        self.optimizer, names = layout.optimizer, layout.names
        is_weight = torch.tensor([role is Role.WEIGHT for role in layout.roles])
        with_gradient = dict(zip(block.steps.tolist(), (block.grad_norms != 0) & ~block.missing, strict=True))
        largest, count, first, last = (s.of(names) for s in (self.largest, self.samples, self.first, self.last))
        for step, ratios, rates in zip(
            samples.steps.tolist(), samples.update_ratios, samples.learning_rates, strict=True
        ):
            counts = is_weight & ratios.isfinite() & (rates != 0) & with_gradient[step]
            largest = torch.where(counts, torch.maximum(largest, ratios), largest)
            count = count + counts
            first = torch.where(counts & first.isnan(), float(step), first)
            last = torch.where(counts, float(step), last)
            still = (count >= self.patience) & (last - first >= self.min_steps) & (largest < self.ratio)
            for i in still.nonzero().flatten().tolist():
                self.reported[names[i]] = Spell(int(first[i]), int(last[i]), active=True)
            for name in [n for i, n in enumerate(names) if n in self.reported and not still[i]]:
                self.reported[name] = Spell(self.reported[name].first_step, self.reported[name].last_step, active=False)
        for statistic, values in zip(
            (self.largest, self.samples, self.first, self.last), (largest, count, first, last), strict=True
        ):
            statistic.values = values
        self.weights = tuple(n for n, w in zip(names, is_weight.tolist(), strict=True) if w)

    def findings(self) -> tuple[Finding, ...]:
        """Say which weights stand still."""
        if not self.reported:
            return ()
        spells, largest = (
            self.reported.values(),
            dict(zip(self.largest.names, self.largest.values.tolist(), strict=True)),
        )
        active = any(spell.active for spell in spells)
        ratios = {name: largest[name] for name in self.reported if name in largest}
        finding = Finding(
            Symptom.UPDATE_TOO_SMALL,
            Severity.WARNING if active else Severity.INFO,
            tuple(self.reported),
            self.optimizer,
            min(spell.first_step for spell in spells),
            max(spell.last_step for spell in spells),
            active,
            {"largest update/weight": max(ratios.values(), default=0.0), "by weight": ratios},
            f"{len(self.reported)} of {len(self.weights)} weight matrices get gradients, but no step has changed them "
            f"by more than {self.ratio:.0e} of their norm.",
        )
        return (finding,)


def _or_zero(value: float) -> float:
    return value if math.isfinite(value) else 0.0
