"""The gradient grows over the time steps of a sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from gradguard.detect.finding import Severity
from gradguard.detect.in_time import Profile
from gradguard.detect.symptom import Symptom
from gradguard.detect.time import AbstractTimeDetector, Evidence, evidence_of

STEADY = 0.9  # share of a profile's logarithm that a line explains where it grows by the same factor at each step


@final
class ExplodingTime(AbstractTimeDetector):
    """The gradient of a recurrent layer grows by orders of magnitude on its way back through the steps.

    Rule: what comes back from the ends of the sequences is somewhere ``growth`` times as large as at lag 0, at
    ``patience`` samples on end; or ``growth`` to the power of 2/3 where it doubles at each step, in sequences that are
    too short for more. Still a warning once it is over, where the first step showed it: it did its harm. Critical from
    the square of that, or where it overflows. LSTMs that have learnt a task over their whole sequence grow a few
    hundredfold at single samples.

    In a loop of one's own over cells, where the loss may be at any step, it has to grow steadily: a line through its
    logarithm explains ``STEADY`` of it (``ThroughTime(loss_at_end=True)`` says that the loss is at the last step).

    Args:
        growth: limit, > 1.
        patience: samples on end, >= 1.
        min_length: steps of a sequence below which nothing is said.

    Source: Pascanu et al. 2013, arXiv 1211.5063, section 2.
    """

    symptom = Symptom.EXPLODING_TIME

    def __init__(self, growth: float = 1000.0, *, patience: int = 3, min_length: int = 5) -> None:
        super().__init__(patience=patience, min_length=min_length)
        if not growth > 1:
            raise ValueError(f"ExplodingTime needs growth > 1, got {growth=}.")
        self.growth = growth

    def judge(self, module: str, profiles: Sequence[Profile], lag: int | None) -> Evidence | None:
        """See the head of this class."""
        sick = [p for p in profiles if self._explodes(p)]
        if not sick:
            return None
        worst = max(sick, key=lambda p: p.decay.growth)
        severity = Severity.CRITICAL if worst.decay.growth >= self.growth**2 else Severity.WARNING
        return evidence_of(worst, [p.layer for p in sick], severity, lag, math.nan, self.course)

    def once_over(self, first_step: int) -> Severity:
        """Say how much it still matters: where a run began with it, its first steps were lost, or worse."""
        return Severity.WARNING if first_step == 1 else Severity.INFO

    def _explodes(self, of: Profile) -> bool:
        rate, fit, _, growth = of.decay
        is_steady = rate > 0 and fit >= STEADY
        is_steep = is_steady and rate >= math.log(2) and growth >= self.growth ** (2 / 3)
        return (growth >= self.growth and (is_steady or not of.is_total)) or is_steep

    def explain(self, evidence: Evidence) -> tuple[Mapping[str, object], str]:
        """Give the numbers, and the sentences."""
        change = math.exp(evidence.rate) if not math.isnan(evidence.rate) else math.nan
        numbers = {
            "growth": evidence.growth,
            "change per step": change,
            "fit r2": evidence.fit,
            "length of the sequences": evidence.length,
        }
        grown = "it overflows" if math.isinf(evidence.growth) else f"it grows {evidence.growth:.3g}-fold"
        return numbers, (
            f"On its way back through {evidence.length:.0f} steps the gradient explodes: {grown}. A few early steps "
            "outweigh all others, and one step size can't suit them all."
        )
