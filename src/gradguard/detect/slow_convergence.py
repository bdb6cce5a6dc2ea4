"""A run that hardly moves."""

from __future__ import annotations

import math
from collections import deque
from itertools import pairwise
from statistics import fmean
from typing import final

from gradguard.detect.base import Persistence
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.loss import AbstractLossDetector
from gradguard.detect.recent_loss import RecentLoss
from gradguard.detect.symptom import Symptom

EVERY = 50  # losses between two looks
LOOKS = 4  # over which a loss falls steadily


@final
class SlowConvergence(AbstractLossDetector):
    """The loss has hardly fallen since the start, and the steps are so small that it can't.

    Rule, after each 50 losses: the median of the last hundred is not below 90 % of the first ten (by less than a tenth
    of their size), and a step moves the weights by less than ``ratio`` of their norm on average since the start. Or the
    loss creeps: it is not below 70 %, fell at each of the last four looks, no more slowly than before, and a step moves
    the weights by less than two and a half times ``ratio``. By more than 1e-8 in both cases, below which
    ``UpdateTooSmall`` speaks, and the last 50 by no more than half as much again as the 50 before: a learning rate that
    is being warmed up is no fault. Raised at ``patience`` looks on end.

    Where several optimizers are watched, whose losses say less, the limit is a quarter of ``ratio``.

    Both at once, since a loss that rests may rest at the best that there is, and small steps may be all that a
    fine-tuning needs.

    What it can't see: a plateau at large steps; a run without a recorded loss; how far the steps go where weights are
    sharded.

    Args:
        ratio: limit of the average update over the weights, > 0. Usual are 1e-3 to 1e-2.
        fall: share of the first loss by which it should have fallen, in (0, 1).
        patience: looks on end, >= 1.

    Source: AUTOTRAINER (accuracy that rises by less than 0.01); TheDeepChecker's band of update ratios, [1e-4, 1e-1].
    """

    judges_games = True

    def __init__(self, ratio: float = 2e-4, *, fall: float = 0.1, patience: int = 2) -> None:
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
        self.persistence.observe(step, holds)
        if holds:
            self.evidence = (start, level, average)

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
                f"The loss has moved from {start:.4g} to {level:.4g} only, and a step changes the weights by "
                f"{average:.1e} of their norm: at this rate nothing much is learnt.",
            ),
        )
