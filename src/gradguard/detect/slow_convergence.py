"""A run that hardly moves."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from statistics import fmean
from typing import final

from gradguard.detect.base import Persistence
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.loss import AbstractLossDetector
from gradguard.detect.recent_loss import RecentLoss
from gradguard.detect.symptom import Symptom

EVERY = 50  # losses between two looks
LOOKS = 4  # over which a loss falls steadily
GONE = 0.02  # of its highest, at which a learning rate is
ONLY = 100  # steps at least that were made with such a one
MOST, LONG = 0.55, 2 / 3  # of all steps so far, by the learning rate and by the average update


@final
class SlowConvergence(AbstractLossDetector):
    """The loss has hardly fallen since the start, and the steps are so small that it can't; or most of them are so.

    Rule, after each 50 losses: the median of the last hundred is not below 90 % of the first ten (by less than a tenth
    of their size), and a step moves the weights by less than ``ratio`` of their norm on average since the start. Or the
    loss creeps: it is not below 70 %, fell at each of the last four looks, no more slowly than before, and a step moves
    the weights by less than two and a half times ``ratio``. By more than 1e-8 in both cases, below which
    ``UpdateTooSmall`` speaks, and the last 50 by no more than half as much again as the 50 before: a learning rate that
    is being warmed up is no fault. Raised at ``patience`` looks on end.

    Both at once, since a loss that rests may rest at the best that there is, and small steps may be all that a
    fine-tuning needs. Where several optimizers are watched, whose losses say less, the limit is a quarter of ``ratio``.

    Or the learning rate is gone too early: it has been at a fiftieth of its highest or less for most of the run
    (``MOST`` of all steps so far, and a hundred at least). So it is with a schedule in epochs that is called at each
    step, or a plateau of the wrong sign; at the end of one that is meant, far less is left of the run. The same of the
    average update, since an optimizer may have a decay of its own, over ``LONG`` of all steps, where the loss of the
    only optimizer is above half of its start: steps that have converged are small, too.

    What it can't see: a plateau at large steps; a run without a recorded loss; how far the steps go where weights are
    sharded.

    Args:
        ratio: limit of the average update over the weights, > 0. Usual are 1e-3 to 1e-2.
        fall: share of the first loss by which it should have fallen, in (0, 1).
        patience: looks on end, >= 1.

    Source: AUTOTRAINER (accuracy that rises by less than 0.01); TheDeepChecker's band of update ratios, [1e-4, 1e-1].
    """

    judges_games = True

    def __init__(self, ratio: float = 4e-4, *, fall: float = 0.1, patience: int = 2) -> None:
        super().__init__()
        if not (ratio > 0 and 0 < fall < 1):
            raise ValueError(f"SlowConvergence needs ratio > 0 and 0 < fall < 1, got {ratio=}, {fall=}.")
        self.ratio, self.fall, self.patience = ratio, fall, patience
        self.recent = RecentLoss()
        self.persistence = Persistence(patience, share=1.0)
        self.distance, self.known = 0.0, 0  # sum of the updates, and of how many
        self.lately: deque[float] = deque(maxlen=2 * EVERY)
        self.levels: deque[float] = deque(maxlen=LOOKS + 1)
        self.evidence: tuple[float, float, float] = (math.nan, math.nan, math.nan)
        self.highest, self.gone_since, self.is_gone, self.since = 0.0, 0, False, 0  # of the learning rate
        self.fastest, self.slow_since = 0.0, 0  # of the average update between two looks
        self.rates: list[tuple[int, float]] = []  # of sampled steps that are not counted yet

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        samples = block.samples
        rates = samples.learning_rates.nan_to_num(0.0).amax(1).tolist() if len(block.layout.names) else []
        self.rates = list(zip(samples.steps.tolist(), rates, strict=False))
        super().observe(block)
        self._follow_rate(math.inf)

    def _follow_rate(self, up_to: float) -> None:
        """Note since when the learning rate is gone."""
        while self.rates and self.rates[0][0] <= up_to:
            step, rate = self.rates.pop(0)
            self.highest = max(self.highest, rate)
            is_gone = rate <= GONE * self.highest > 0
            self.gone_since = (self.gone_since or step) if is_gone else 0

    def _follow_pace(self, step: int) -> None:
        """Note since when the steps are as small as if the learning rate were gone: an optimizer may have its own."""
        lately = list(self.lately)[-EVERY:]
        pace = fmean(lately) if lately else 0.0
        self.fastest = max(self.fastest, pace)
        if pace > GONE * self.fastest or self.fastest == 0:
            self.slow_since = 0
        elif not self.slow_since:
            self.slow_since = step - len(lately) + 1

    def see(self, step: int, loss: float, moved: float) -> None:
        """Take in one step."""
        self.recent.observe(loss)
        if not math.isnan(moved):
            self.distance, self.known = self.distance + moved, self.known + 1
            self.lately.append(moved)
        if self.recent.count % EVERY:
            return
        start, level = self.recent.start, self.recent.level
        average = self.distance / self.known if self.known else math.nan
        ratio = self.ratio if self.alone else self.ratio / 4
        self.levels.append(level)
        fallen = (start - level) / abs(start) if start else math.nan
        rests = average < ratio and not fallen > self.fall
        creeps = average < 2.5 * ratio and not fallen > 3 * self.fall and self._falls_steadily()
        holds = average > 1e-8 and (rests or creeps) and not self._is_warming_up()
        self._follow_rate(step)
        self._follow_pace(step)
        without_rate = step - self.gone_since if self.gone_since else 0
        slow = step - self.slow_since if self.slow_since and self.alone and level > 0.5 * start > 0 else 0
        is_gone = without_rate >= max(ONLY, MOST * step) or slow >= max(ONLY, LONG * step)
        self.persistence.observe(step, holds or is_gone)
        if holds or is_gone:
            self.evidence, self.is_gone = (start, level, average), is_gone and not holds
            self.since = step - max(without_rate, slow)

    def _falls_steadily(self) -> bool:
        """Whether it was lower at each of the last looks, by as much as before: there is more to be learnt."""
        falls = [a - b for a, b in pairwise(self.levels)]
        return len(falls) == LOOKS and min(falls) > 0 and falls[-1] > 0.5 * max(falls)

    def _is_warming_up(self) -> bool:
        moved = list(self.lately)
        return len(moved) > EVERY and fmean(moved[EVERY:]) > 1.5 * fmean(moved[:EVERY])

    def findings(self) -> tuple[Finding, ...]:
        """Say where the loss stands, and how small the steps are."""
        spell = self.persistence.spell
        if spell is None:
            return ()
        start, level, average = self.evidence
        why = (
            f"The learning rate, or the step, has been at a fiftieth of its highest, or less, since step {self.since}: "
            f"most of the run goes by in steps of next to nothing. The loss went from {start:.4g} to {level:.4g}."
            if self.is_gone
            else f"The loss has moved from {start:.4g} to {level:.4g} only, and a step changes the weights by "
            f"{average:.1e} of their norm: at this rate nothing much is learnt."
        )
        return (
            Finding(
                Symptom.SLOW_CONVERGENCE,
                Severity.WARNING if spell.active else Severity.INFO,
                (),
                self.optimizer,
                spell.first_step,
                spell.last_step,
                spell.active,
                {"loss at first": start, "loss now": level, "average update/weight": average, "usual": "1e-3 to 1e-2"},
                why,
            ),
        )
