"""Steps that are too large for the weights that they change."""

from __future__ import annotations

import math
from collections import deque
from statistics import fmean, median_low
from typing import final

from gradguard.detect.base import AbstractDetector, Persistence, Spell
from gradguard.detect.block import Block, Role, matrices
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.first_moves import FirstMoves
from gradguard.detect.steady_moves import SteadyMoves
from gradguard.detect.symptom import Symptom

SURE = 10.0  # times ``breaking``, at step 1, where the loss is not asked: 1.2 was the most in healthy programs
AFTER = 10  # losses after the first step, in which harm shows
BEFORE = 5  # steps before the first gradient that is not finite, in which its cause shows


@final
class UpdateTooLarge(AbstractDetector):
    """One optimizer step changes the weights by a large share of themselves.

    Rule: the median over all weight matrices of update norm / weight norm, on sampled steps. Critical where it
    reaches ``breaking`` at two samples on end after step 1, or half of that at step 1, where the loss rises by it (of
    the next ten losses the median is 15 % above the first one, or the highest three times as high): Adam's first step
    on small weights is as large in runs that train well, but does no harm there. From ten times ``breaking`` the loss
    is not asked, unless the model has nothing but tables, which may begin at next to nothing. A warning where it
    reaches ``ratio`` at ``patience`` samples on end that span ``min_steps`` steps after ``warmup``. About 1e-3 is
    usual. Weights that were zero at the first sample are left out of the first two limits: whatever grows from nothing
    doubles.

    A warning as well where all of the first 50 steps, and not the sampled ones alone, moved the weights too far on
    average: see :class:`FirstMoves`. Where no weight was zero at first, and there are more than tables, it is enough
    that the loss is above seven tenths of the first one all the same. And where a hundred steps on end do so later on
    and get nowhere: see :class:`SteadyMoves`; not in models of tables alone.

    Critical where the run ended in NaN and Inf by it: where the last five steps before the first gradient that is not
    finite moved the weights by half of ``breaking`` on average, each counted as ``breaking`` at most.

    What it can't see: what happens between samples; a single layer that moves too fast among many that do not.

    Args:
        ratio: limit for lasting updates, > 0.
        breaking: limit at which two samples are enough, > ``ratio``.
        warmup: steps before the lower limit counts, >= 0.
        patience: samples on end that it has to hold, >= 1.
        min_steps: steps between the first and the last of them, >= 0.

    Source: the band [1e-4, 1e-1] is TheDeepChecker's.
    """

    def __init__(
        self,
        ratio: float = 0.1,
        *,
        breaking: float = 1.0,
        warmup: int = 10,
        patience: int = 4,
        min_steps: int = 50,
    ) -> None:
        if not 0 < ratio < breaking or warmup < 0 or min_steps < 0:
            raise ValueError(
                "UpdateTooLarge needs 0 < ratio < breaking, warmup >= 0 and min_steps >= 0, got "
                f"{ratio=}, {breaking=}, {warmup=}, {min_steps=}."
            )
        self.ratio, self.breaking, self.warmup, self.min_steps = ratio, breaking, warmup, min_steps
        self.lasting = Persistence(patience, share=1.0)
        self.breaks = Persistence(2, share=1.0)
        self.at_first, self.first_by_weight = 0.0, dict[str, float]()  # the ratios of step 1
        self.losses: tuple[float, ...] = ()  # the first eleven
        self.first_moves, self.steady_moves = FirstMoves(), SteadyMoves()
        self.lately: deque[float] = deque(maxlen=BEFORE)  # how far the last steps moved the weights
        self.end: Spell | None = None  # where the run went on without a finite gradient, after such steps
        self.has_ended = False
        self.alone, self.has_tables_alone = True, False
        self.zero_at_first: frozenset[str] | None = None
        self.optimizer = ""
        self.largest = 0.0
        self.largest_by_weight: dict[str, float] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        layout, samples = block.layout, block.samples
        self.optimizer, self.alone = layout.optimizer, block.alone
        self.first_moves.observe(block)
        self.steady_moves.observe(block)
        self._see_end(block)
        if len(self.losses) <= AFTER:
            losses = block.losses[block.has_loss & ~block.overflow & block.losses.isfinite()].tolist()
            self.losses = (*self.losses, *losses)[: AFTER + 1]
        weights = matrices(layout)
        names = [layout.names[i] for i in weights]
        self.has_tables_alone = Role.WEIGHT not in layout.roles
        for step, ratios, norms in zip(
            samples.steps.tolist(), samples.update_ratios[:, weights], samples.weight_norms[:, weights], strict=True
        ):
            if self.zero_at_first is None:
                self.zero_at_first = frozenset(n for n, norm in zip(names, norms.tolist(), strict=True) if norm == 0)
            by_weight = {n: r for n, r in zip(names, ratios.tolist(), strict=True) if not math.isnan(r)}
            grown = [r for n, r in by_weight.items() if n not in self.zero_at_first]
            breaks = step > 1 and bool(grown) and median_low(grown) >= self.breaking
            if step == 1 and grown:
                self.at_first, self.first_by_weight = median_low(grown), by_weight
            middle = median_low(by_weight.values()) if by_weight else 0.0
            lasts = step > self.warmup and middle >= self.ratio
            if step > 1 and grown:
                self.breaks.observe(step, breaks)
            if step > self.warmup and by_weight:
                self.lasting.observe(step, lasts)
            if (breaks or lasts) and middle > self.largest:
                self.largest, self.largest_by_weight = middle, by_weight

    def _see_end(self, block: Block) -> None:
        """Look at the steps before the first gradient that is not finite."""
        if self.has_ended or block.moved is None:
            return
        made = ~block.overflow & ~block.skipped
        columns = block.steps[made].tolist(), block.moved[made].tolist(), block.totals[made].isfinite().tolist()
        for step, moved, is_finite in zip(*columns, strict=True):
            if not is_finite:
                self.has_ended = True
                if self.lately and fmean(self.lately) >= self.breaking / 2:
                    self.end = Spell(max(1, step - len(self.lately)), step, active=False)
                return
            if math.isfinite(moved):
                self.lately.append(min(moved, self.breaking))

    def _moved_too_far(self) -> bool:
        from_nothing = self.has_tables_alone or bool(self.zero_at_first)
        return self.first_moves.are_too_large or (self.first_moves.bring_nothing and not from_nothing)

    def _was_overwritten(self) -> bool:
        if self.at_first >= SURE * self.breaking and not self.has_tables_alone:
            return True
        if self.at_first < self.breaking / 2 or len(self.losses) <= AFTER:
            return False
        if not self.alone:
            return self.at_first >= 2 * self.breaking
        before, *after = self.losses
        if min(self.losses) < 0 < max(self.losses):
            return False  # a loss about zero, of which nothing can be said in shares
        return median_low(after) - before >= 0.15 * abs(before) or max(after) - before >= 2 * abs(before)

    def findings(self) -> tuple[Finding, ...]:
        """Say by how much the weights move at each step."""
        lasting = self.lasting.spell
        if lasting is not None and lasting.last_step - lasting.first_step < self.min_steps:
            lasting = None
        first = Spell(1, 1, active=False) if self._was_overwritten() else None
        moves = Spell(1, self.first_moves.last_step, active=False) if self._moved_too_far() else None
        steady = None if self.has_tables_alone else self.steady_moves.spell
        every = (first, moves, self.end, self.breaks.spell, lasting, steady)
        spells = [spell for spell in every if spell is not None]
        if not spells:
            return ()
        is_first = (first is not None or moves is not None) and self.at_first > self.largest
        average = max(
            self.first_moves.average if moves else 0.0,
            fmean(self.lately) if self.end else 0.0,
            self.steady_moves.largest if steady else 0.0,
        )
        largest = max(self.at_first if is_first else self.largest, average)
        ordered = sorted((self.first_by_weight if is_first else self.largest_by_weight).items(), key=lambda i: -i[1])
        finding = Finding(
            Symptom.UPDATE_TOO_LARGE,
            Severity.CRITICAL if first or self.end or self.breaks.spell is not None else Severity.WARNING,
            tuple(name for name, ratio in ordered if ratio >= self.ratio),
            self.optimizer,
            min(spell.first_step for spell in spells),
            max(spell.last_step for spell in spells),
            any(spell.active for spell in spells),
            {"median update/weight": largest, "usual": "1e-4 to 1e-2", "by weight": dict(ordered)},
            f"A hundred steps on end changed the weights by {largest:.2g} of their norm each, and got nowhere."
            if spells == [steady]
            else f"A single step changes the median weight matrix by up to {largest:.2g} of its own norm: what was "
            "learnt so far is overwritten.",
        )
        return (finding,)
