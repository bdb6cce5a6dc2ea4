"""The gradient fades over the time steps of a sequence before it gets where it is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from gradguard.detect.finding import Severity
from gradguard.detect.in_time import Profile
from gradguard.detect.symptom import Symptom
from gradguard.detect.time import AbstractTimeDetector, Evidence, evidence_of

RECENT = 8  # samples over which a profile is seen to open


@final
class VanishingTime(AbstractTimeDetector):
    """The gradient of a recurrent layer has faded long before it reaches the steps that the loss depends on.

    A gradient that fades is no fault by itself: a task that needs the last steps alone is learnt with it, and most
    healthy LSTMs begin like that. So a short horizon (the lag from which on 1 % is left) is not enough.

    Rule, where the user says how far back the task reaches (``ThroughTime(lag=...)``): less than 1 % of the largest
    gradient is left at that lag, in every layer of the module, and the loss has not been learnt (it is not below a
    tenth of its start, nor below half of what it was at steps 100 to 200). Critical where it does not fall any more
    either: the last third of the run is less than 5 % below the third before it.

    Rule otherwise: the horizon of every layer is below ``share`` of the sequence; the loss touches the module at the
    ends of the sequences alone (with a loss at every step, what is near may be all there is to learn); the loss has
    not been learnt and does not fall, after ``min_steps`` steps; and the profile does not open: it does where, over
    the last 8 samples, what is left in the middle of the sequence has risen in rank order (Spearman's 0.7) and at
    least threefold, as in an LSTM that will solve its task. Then a warning. Where no loss is recorded nothing can be
    said about it: info.

    What it can't see: a task that needs no more than the horizon and whose loss has come to rest on noise looks the
    same: give the lag. Memory that goes round the layer, such as attention.

    Args:
        share: of the sequence's length, below which a horizon is short, in (0, 1).
        min_steps: with a loss, before the loss is judged.
        patience: samples on end, >= 1.
        min_length: steps of a sequence below which nothing is said.

    Source: Bengio et al. 1994 and Pascanu et al. 2013 (the decay); the rule is of this package, measured by
    ``benchmarks/through_time.py``.
    """

    symptom = Symptom.VANISHING_TIME

    def __init__(self, share: float = 0.1, *, min_steps: int = 300, patience: int = 3, min_length: int = 20) -> None:
        super().__init__(patience=patience, min_length=min_length)
        if not 0 < share < 1 or min_steps < 0:
            raise ValueError(f"VanishingTime needs 0 < share < 1 and min_steps >= 0, got {share=}, {min_steps=}.")
        self.share, self.min_steps = share, min_steps
        self.middles: dict[str, tuple[float, ...]] = {}

    def judge(self, module: str, profiles: Sequence[Profile], lag: int | None) -> Evidence | None:
        """See the head of this class."""
        longest = max(profiles, key=lambda p: p.share)
        middle = max(p.left_at(int(p.length) // 2) for p in profiles)
        self.middles[module] = (*self.middles.get(module, ()), middle)[-RECENT:]
        course, is_known = self.course, self.course.steps >= self.min_steps
        if course.steps and course.has_learnt:
            return None
        left = math.nan
        if lag is not None:
            there = [share for p in profiles if not math.isnan(share := p.left_at(lag))]
            if not there or max(there) >= 0.01:
                return None
            left = max(there)
            severity = Severity.CRITICAL if is_known and not course.falls else Severity.WARNING
        else:
            if longest.share >= self.share or not all(p.is_at_end for p in profiles):
                return None
            is_on = (spell := self.persistence.spell(module)) is not None and spell.active
            if course.steps and (not is_known or course.falls or (not is_on and opens(self.middles[module]))):
                return None
            severity = Severity.WARNING if course.steps else Severity.INFO
        return evidence_of(longest, [p.layer for p in profiles], severity, lag, left, course)

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
            need = f"the task reaches {evidence.lag} steps back, where {evidence.left:.1e} of the gradient is left"
        elif math.isnan(evidence.start):
            need = "no loss is recorded, so that nobody can say whether the task needs more"
        else:
            need = f"and the loss rests at {evidence.level:.3g}"
        return numbers, (
            f"After {evidence.horizon:.3g} of {evidence.length:.0f} steps back, less than 1 % of the gradient is left: "
            f"what lies before that can't be learnt; {need}."
        )


def opens(middles: Sequence[float]) -> bool:
    """Whether what is left of a gradient far back rises from sample to sample."""
    n = len(middles)
    if n < RECENT or not middles[-1] > 0 or not middles[-1] >= 3 * middles[0]:
        return False
    order = sorted(range(n), key=lambda i: middles[i])
    ranks = {i: rank for rank, i in enumerate(order)}
    return 1 - 6 * sum((ranks[i] - i) ** 2 for i in range(n)) / (n * (n * n - 1)) >= 0.7
