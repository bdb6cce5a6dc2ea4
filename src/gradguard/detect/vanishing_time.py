"""The gradient fades over the time steps of a sequence before it gets where it is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import final

from gradguard.detect.finding import Severity
from gradguard.detect.in_time import Profile
from gradguard.detect.symptom import Symptom
from gradguard.detect.time import AbstractTimeDetector, Evidence, evidence_of
from gradguard.functional.decay import LEFT

RECENT = 8  # samples over which a profile is seen to open
MANY = 24  # samples, at half of which a horizon was short
BARREN = 200  # steps in which something would have been learnt


@final
class VanishingTime(AbstractTimeDetector):
    """The gradient of a recurrent layer has faded long before it reaches the steps that the loss depends on.

    A gradient that fades is no fault by itself: a task that needs the last steps alone is learnt with it, and most
    healthy LSTMs begin like that. So a short horizon (the lag from which on 1 % is left) is not enough.

    Rule: the gradient does not reach; the loss has not been learnt (it is not below a tenth of its start, nor below
    half of what it was at steps 100 to 200) and does not fall (the last third of the run is less than 5 % below both
    thirds before it), after ``min_steps`` steps; and the profile does not open: it does where, over the last 8 samples,
    what is left in the middle of the sequence has risen in rank order (Spearman's 0.7) and at least threefold, as in an
    LSTM that will solve its task; and fast enough to be there soon, where the loss has not moved at all. Then a
    warning; info where no loss is recorded, since nobody can say.

    It does not reach where the user says how far back the task goes (``ThroughTime(lag=...)``) and, in every layer of
    the module, less than 1 % of the largest gradient up to there is left, or the sequences are shorter. Otherwise,
    where the horizon of every layer is below ``share`` of the sequence and the loss touches the module at the ends of
    the sequences alone: with a loss at every step, what is near may be all there is to learn. Below ``barren`` of the
    sequence, at half of all samples and of the last 8, where the loss has not moved from where it began (by less than
    5 %) in 200 steps or more: then what is near is not what is needed.

    What it can't see: a task that needs no more than the horizon, and whose loss has come to rest on noise, looks the
    same. A loss that fell by much because the mean of its target was far off. Memory that goes round the layer, such as
    attention. Without a lag, sequences of fewer than a hundred steps, a tenth of which most cells keep, as soon as
    anything is learnt.

    Args:
        share: of the sequence's length, below which a horizon is short, in (0, 1).
        barren: the same where nothing is learnt, in [share, 1).
        min_steps: with a loss, before the loss is judged; twice the length of the sequences where that is less, and at
            least 100.
        patience: samples on end, >= 1.
        min_length: steps of a sequence below which nothing is said.

    Source: Bengio et al. 1994 and Pascanu et al. 2013 (the decay); the rule is of this package, measured by
    ``benchmarks/through_time.py``.
    """

    symptom = Symptom.VANISHING_TIME

    def __init__(
        self,
        share: float = 0.1,
        *,
        barren: float = 0.5,
        min_steps: int = 300,
        patience: int = 3,
        min_length: int = 20,
    ) -> None:
        super().__init__(patience=patience, min_length=min_length)
        if not 0 < share <= barren < 1 or min_steps < 0:
            raise ValueError(
                f"VanishingTime needs 0 < share <= barren < 1 and min_steps >= 0, got {share=}, {barren=}, "
                f"{min_steps=}."
            )
        self.share, self.barren, self.min_steps = share, barren, min_steps
        self.middles: dict[str, tuple[float, ...]] = {}
        self.shares: dict[str, tuple[float, ...]] = {}  # of the length, that the horizon was

    def judge(self, module: str, profiles: Sequence[Profile], lag: int | None) -> Evidence | None:
        """See the head of this class."""
        longest = max(profiles, key=lambda p: p.share)
        middle = max(p.left_at(int(p.length) // 2) for p in profiles)
        self.middles[module] = (*self.middles.get(module, ()), middle)[-RECENT:]
        self.shares[module] = (*self.shares.get(module, ()), longest.share)[-MANY:]
        course, left = self.course, math.nan
        if lag is not None:
            there = [share for p in profiles if not math.isnan(share := p.left_at(lag))]
            left = max(there, default=0.0)  # sequences, or windows of them, that are shorter: nothing gets there
            reaches = left >= LEFT
        else:
            is_short = longest.share < self.share or self._learns_nothing(module)
            reaches = not is_short or not all(p.is_at_end for p in profiles)
        is_on = (spell := self.persistence.spell(module)) is not None and spell.active
        middles = self.middles[module]
        opening = not is_on and opens(middles) and (self._gets_there(middles) or not self._stays())
        enough = min(self.min_steps, max(100, 2 * longest.length))
        is_judged = not course.steps or course.steps >= enough
        if reaches or not is_judged or (course.steps and (course.has_learnt or course.falls or opening)):
            return None
        severity = Severity.WARNING if course.steps else Severity.INFO
        return evidence_of(longest, [p.layer for p in profiles], severity, lag, left, course)

    def _stays(self) -> bool:
        """Whether the loss is where it began, after steps in which something would have been learnt."""
        course = self.course
        return course.steps >= BARREN and course.level > 0.95 * course.start and course.stays

    def _gets_there(self, middles: Sequence[float]) -> bool:
        """Whether enough will be left far back in twice as many samples again, at the pace of the last ones."""
        return middles[-1] ** 3 >= LEFT * middles[0] ** 2

    def _learns_nothing(self, module: str) -> bool:
        """Whether the loss stays, and the gradient has reached no farther most of the time."""
        shares = self.shares[module]
        return self._stays() and max(median(shares), median(shares[-RECENT:])) < self.barren

    def explain(self, evidence: Evidence) -> tuple[Mapping[str, object], str]:
        """Give the numbers, and the sentences."""
        numbers: dict[str, object] = {
            "horizon in steps": evidence.horizon,
            "length of the sequences": evidence.length,
            "change per step": math.exp(evidence.rate) if not math.isnan(evidence.rate) else math.nan,
            "fit r2": evidence.fit,
        }
        if not math.isnan(evidence.start):
            numbers |= {"loss at the start": evidence.start, "loss now": evidence.level}
        if evidence.lag is not None:
            numbers |= {"lag of the task": evidence.lag, "left at that lag": evidence.left}
            where = (
                f"where {evidence.left:.1e} of the gradient is left"
                if evidence.lag < evidence.length
                else "beyond that"
            )
            need = f"the task reaches {evidence.lag} steps back, {where}"
        elif math.isnan(evidence.start):
            need = "no loss is recorded, so that nobody can say whether the task needs more"
        else:
            need = f"and the loss rests at {evidence.level:.3g}, on noise or on what is not learnt"
        ends = f"The sequences have {evidence.length:.0f} steps"
        if not math.isinf(evidence.horizon):
            ends = f"After {evidence.horizon:.3g} of {evidence.length:.0f} steps back, 1 % of the gradient is left"
        return numbers, f"{ends}: what lies before that can't be learnt; {need}."


def opens(middles: Sequence[float]) -> bool:
    """Whether what is left of a gradient far back rises from sample to sample."""
    n = len(middles)
    if n < RECENT or not middles[-1] > 0 or not middles[-1] >= 3 * middles[0]:
        return False
    order = sorted(range(n), key=lambda i: middles[i])
    ranks = {i: rank for rank, i in enumerate(order)}
    return 1 - 6 * sum((ranks[i] - i) ** 2 for i in range(n)) / (n * (n * n - 1)) >= 0.7
