"""A loss that jumps back up."""

from __future__ import annotations

import math
from collections import deque
from statistics import median
from typing import final

from gradguard.detect.base import Spell
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.loss import AbstractLossDetector
from gradguard.detect.recent_loss import RecentLoss
from gradguard.detect.symptom import Symptom

LATELY = 10  # steps of which some have to be high
BEFORE = 20  # steps before the first high one, among which a larger update is looked for


@final
class LossSpike(AbstractLossDetector):
    r"""The loss jumps: much of what was learnt is lost at a stroke, for some steps or for good.

    Rule: with level m and robust spread s of the last hundred losses that were not high themselves, and the mean a of
    the first ten, a loss is high where it exceeds m by more than :math:`\max(z\,s,\ b\,(a - m))`. Raised where
    ``patience`` of ten steps on end are high; critical where 50 on end are and do not come down. Where a hundred on end
    are, and come down, they are another task's, which is being learnt: info, and they are the level from then on. Over
    once fewer than half of ten are.

    Relative to what was learnt, b (a - m), since near zero a loss of single batches scatters by any number of its own
    deviations. How far the steps before moved the weights, over their own median, stands in the evidence: under Adam
    the updates grow before the loss does.

    What it can't see: a single bad batch; a loss that was not recorded; a rise that is slow (see ``OscillatingLoss``).

    Args:
        z: limit in robust deviations, > 0.
        back: b, share of what was learnt that has to be lost, > 0.
        warmup: losses passed over first, >= 20.
        patience: high losses among ten, in [1, 10].

    Source: llm-foundry's KillLossSpike (patience and a multiple of the mean); marin issue 1368 (updates rise first).
    """

    def __init__(self, z: float = 8.0, *, back: float = 0.5, warmup: int = 50, patience: int = 3) -> None:
        super().__init__()
        if not (z > 0 and back > 0 and warmup >= 20 and 1 <= patience <= LATELY):
            raise ValueError(
                f"LossSpike needs z > 0, back > 0, warmup >= 20 and 1 <= patience <= {LATELY}, got {z=}, {back=}, "
                f"{warmup=}, {patience=}."
            )
        self.z, self.back, self.warmup, self.patience = z, back, warmup, patience
        self.recent = RecentLoss()
        self.high: deque[tuple[int, bool]] = deque(maxlen=LATELY)
        self.moved: deque[float] = deque(maxlen=100)  # until the first high loss; then they stay
        self.streak = 0
        self.spell: Spell | None = None
        self.worst = self.level = self.rise = math.nan
        self.above: deque[float] = deque(maxlen=10 * LATELY)  # the high ones on end
        self.is_new_level = False

    def see(self, step: int, loss: float, moved: float) -> None:
        """Take in one step."""
        recent = self.recent
        over = loss - recent.level
        limit = max(self.z * recent.spread, self.back * (recent.start - recent.level))
        is_high = recent.count >= self.warmup and over > limit
        self.high.append((step, is_high))
        self.streak = self.streak + 1 if is_high else 0
        highs = [s for s, is_one in self.high if is_one]
        if len(highs) >= self.patience and (self.spell is None or not self.spell.active):
            if self.spell is None:
                self.level, self.rise = recent.level, self._rise()
            self.spell = Spell(self.spell.first_step if self.spell else highs[0], step, active=True)
        elif self.spell is not None and self.spell.active:
            self.spell = Spell(
                self.spell.first_step, highs[-1] if highs else self.spell.last_step, 2 * len(highs) >= LATELY
            )
        if is_high:
            self.worst = loss if math.isnan(self.worst) else max(self.worst, loss)
            self.above.append(loss)
        else:
            self.above.clear()
            recent.observe(loss)
        if self.streak >= 10 * LATELY and self._falls():
            self._begin_anew()
        if not highs and not math.isnan(moved):
            self.moved.append(moved)

    def _falls(self) -> bool:
        """Say whether the high losses come down: the last third is a tenth nearer to the level than that before."""
        losses, third = list(self.above), len(self.above) // 3
        if not third:
            return False
        before, now = median(losses[third:-third]), median(losses[-third:])
        return now - self.level < 0.9 * (before - self.level)

    def _begin_anew(self) -> None:
        """Take the new losses for the level: they are those of another task, which is being learnt."""
        for loss in self.above:
            self.recent.observe(loss)
        self.above.clear()
        self.high.clear()
        self.streak, self.is_new_level = 0, True
        if self.spell is not None:
            self.spell = Spell(self.spell.first_step, self.spell.last_step, active=False)

    def _rise(self) -> float:
        """Say how far the largest of the last steps before it moved the weights, over the median of those before."""
        before = list(self.moved)
        usual = median(before[:-BEFORE]) if len(before) > 2 * BEFORE else 0.0
        return max(before[-BEFORE:]) / usual if usual > 0 else math.nan

    def findings(self) -> tuple[Finding, ...]:
        """Say when, and from where to where."""
        if self.spell is None:
            return ()
        is_lost = self.streak >= 5 * LATELY and not self._falls()
        told = Severity.CRITICAL if is_lost else Severity.INFO if self.is_new_level else Severity.WARNING
        evidence = {"level before": self.level, "start of the run": self.recent.start, "highest": self.worst}
        if not math.isnan(self.rise):
            evidence["largest update in the 20 steps before, over the usual one"] = self.rise
        over = "to a level from which it falls anew" if self.is_new_level else "and came back"
        after = "and has not come back" if is_lost else "and is still high" if self.spell.active else over
        return (
            Finding(
                Symptom.LOSS_SPIKE,
                told,
                (),
                self.optimizer,
                self.spell.first_step,
                self.spell.last_step,
                self.spell.active,
                evidence,
                f"The loss jumped from {self.level:.3g} to as much as {self.worst:.3g} {after}.",
            ),
        )
