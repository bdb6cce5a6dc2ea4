"""A loss that does not settle: it swings, climbs back, or bounces about where it began."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean, median
from typing import final

from gradguard.detect.base import PerPlace, told
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.loss import AbstractLossDetector
from gradguard.detect.recent_loss import Beginning
from gradguard.detect.symptom import Symptom

FEW = 3  # first losses, before steps that are too large have done anything
SHORT = 10  # losses of a mean, in which the noise of single batches is small
LONG = 50  # losses between two looks
LATELY = 200  # losses among which swings are counted
_MEANS = {
    "swings": "it went up and down {swings} times in {lately} steps, by {swing:.2g} or more each time",
    "climbs": "it has climbed back to {level:.3g} from {best:.3g}",
    "rests": "it has come to rest at {level:.3g} of {start:.3g}, at steps of {moved:.1e} of the weights",
    "rises": "it stays at {level:.3g}, above where it began ({first:.3g}), at steps of {moved:.1e} of the weights",
    "bounces": "it bounces about {level:.3g}, where it began ({start:.3g}), at steps of {moved:.1e} of the weights",
}


@final
class OscillatingLoss(AbstractLossDetector):
    r"""The loss does not settle: the steps are too large for the slope that they go down.

    Rule, after each 50 losses, with a the mean of the first ten, b the lowest median of 50 so far, and g = a - b what
    was learnt at best, which has to be a tenth of a for the first two:

    - *swings*: among the last 200 losses, the means of ten went from a low to a high or back ``swings`` times, by at
      least ``share`` g each and four times what the scatter of single batches explains; and they do not die down (the
      highest mean of the last half is nine tenths of that of the first half, or more);
    - *climbs*: the median of the last 50 lies ``share`` g above b, and five times its standard error, at ``patience``
      looks on end; info as long as half of what was learnt is left, unless it rises on at steps of ``restless``, since
      a term that is weighted up, a harder task or returns that grow make losses rise, too;
    - *rests*: after 200 losses it is above half of a, no lower than 97 % of what it was 50 and 100 losses before, and a
      step moves the weights by ``restless`` of their norm, at ``patience`` looks on end: a loss that rests on noise
      does so at smaller steps;
    - *rises*: it is 15 % and four standard errors above the mean of the first three, and a step moves the weights by
      half of ``restless``, at ``patience`` looks on end;
    - *bounces*: it is not below 90 % of a, the middle half of the losses spreads over ``scatter`` of it, and a step
      moves the weights by ``moved`` of their norm or more, at ``patience`` looks on end after the first one.

    Info as well where losses are of both signs: what a policy's gradient is taken of, or a critic's difference, is no
    distance from something.

    What it can't see: swings from one step to the next, which the means of ten even out, unless it bounces; those of a
    cyclic learning rate are told like others.

    Args:
        swings: how many, >= 2.
        share: of what was learnt, in (0, 1).
        scatter: interquartile range over the median, > 0.
        moved: average update over the weights of what bounces, > 0.
        restless: the same of what rests, > 0.
        patience: looks on end, >= 1.

    Source: AUTOTRAINER (accuracy that goes up and down by 0.03 or more), TheDeepChecker (twice the lowest loss).
    """

    def __init__(
        self,
        swings: int = 4,
        *,
        share: float = 0.25,
        scatter: float = 0.1,
        moved: float = 2e-2,
        restless: float = 1.5e-2,
        patience: int = 2,
    ) -> None:
        super().__init__()
        if not (swings >= 2 and 0 < share < 1 and scatter > 0 and moved > 0 and restless > 0):
            raise ValueError(
                f"OscillatingLoss needs swings >= 2, 0 < share < 1, scatter, moved and restless > 0, got {swings=}, "
                f"{share=}, {scatter=}, {moved=}, {restless=}."
            )
        self.swings, self.share, self.scatter, self.moved, self.patience = swings, share, scatter, moved, patience
        self.restless = restless
        self.beginning = Beginning()
        self.persistence = PerPlace(patience, share=1.0)
        self.last: deque[float] = deque(maxlen=LONG)
        self.steps: deque[float] = deque(maxlen=LONG)
        self.means: deque[float] = deque(maxlen=LATELY // SHORT)
        self.noise = 0.0  # exponential mean of squared differences between neighbours, half of which is their variance
        self.before = math.nan
        self.first = 0.0  # mean of the first few
        self.best = math.inf
        self.levels: deque[float] = deque(maxlen=2)  # of the last two looks
        self.lowest, self.highest = math.inf, -math.inf
        self.evidence: dict[str, dict[str, float]] = {}

    def see(self, step: int, loss: float, moved: float) -> None:
        """Take in one step."""
        self.beginning.observe(loss)
        if self.beginning.count <= FEW:
            self.first += (loss - self.first) / self.beginning.count
        self.last.append(loss)
        self.lowest, self.highest = min(self.lowest, loss), max(self.highest, loss)
        self.steps.append(moved)
        if not math.isnan(self.before):
            self.noise += 0.02 * ((loss - self.before) ** 2 - self.noise)
        self.before = loss
        if self.beginning.count % SHORT == 0:
            self.means.append(fmean(list(self.last)[-SHORT:]))
        if self.beginning.count % LONG == 0:
            self._look(step)

    def _look(self, step: int) -> None:
        start, level = self.beginning.start, median(self.last)
        gained = start - self.best
        quarters = sorted(self.last)
        spread = quarters[3 * LONG // 4] - quarters[LONG // 4]
        known = [distance for distance in self.steps if not math.isnan(distance)]
        moved = fmean(known) if known else math.nan
        swing = max(self.share * gained, 4 * math.sqrt(self.noise / 2 / SHORT))
        error = 1.25 * math.sqrt(self.noise / 2 / LONG)  # of a median
        count = _swings(list(self.means), swing) if math.isfinite(swing) else 0
        has_learnt = gained > 0.1 * abs(start)
        rests = self.beginning.count >= LATELY and level >= 0.97 * max(self.levels)
        stays = self.beginning.count > LONG and level > start - 0.1 * abs(start)
        found = {
            "rests": rests and level > 0.5 * start > 0 and moved >= self.restless,
            "rises": moved >= self.restless / 2 and level > 1.15 * self.first + 4 * math.sqrt(self.noise / 2 / FEW) > 0,
            "swings": has_learnt and count >= self.swings and _lasts(list(self.means)),
            "climbs": has_learnt and level > self.best + max(self.share * gained, 5 * error),
            "bounces": stays and spread > self.scatter * abs(level) and moved >= self.moved,
        }
        before = self.levels[-1] if self.levels else math.nan
        numbers = {
            "lost": start - 0.5 * gained,
            "before": before,
            "swings": count,
            "lately": LATELY,
            "swing": swing,
            "level": level,
            "best": self.best,
        }
        for kind, holds in found.items():
            self.persistence.observe(kind, step, holds)
            if holds:
                self.evidence[kind] = {**numbers, "start": start, "first": self.first, "moved": moved}
        self.best = min(self.best, level)
        self.levels.append(level)

    def _is_mild(self, climb: Mapping[str, float]) -> bool:
        """Whether a loss that climbed back may well have been meant to."""
        is_restless = climb["moved"] >= self.restless and climb["level"] >= climb["before"]
        return climb["level"] < climb["lost"] and not is_restless

    def findings(self) -> tuple[Finding, ...]:
        """Say what it does."""
        spells = self.persistence.spells()
        if not spells:
            return ()
        chosen, span = told(spells)
        is_mild = set(chosen) == {"climbs"} and self._is_mild(self.evidence["climbs"])
        reasons = "; ".join(_MEANS[kind].format(**self.evidence[kind]) for kind in _MEANS if kind in chosen)
        last = self.evidence[next(iter(chosen))]
        return (
            Finding(
                Symptom.OSCILLATING_LOSS,
                Severity.WARNING if span[2] and not is_mild and not self.lowest < 0 < self.highest else Severity.INFO,
                (),
                self.optimizer,
                *span,
                {
                    "loss at first": last["start"],
                    "lowest": last["best"],
                    "now": last["level"],
                    "update/weight": last["moved"],
                },
                f"The loss does not settle: {reasons}.",
            ),
        )


def _lasts(means: list[float]) -> bool:
    """Whether swings are about as high in the second half as in the first."""
    half = len(means) // 2
    return max(means[half:]) >= 0.9 * max(means[:half])


def _swings(means: list[float], least: float) -> int:
    """Count the ways between turning points of a series that are at least so long."""
    count, low, high, up = 0, means[0], means[0], None
    for value in means[1:]:
        low, high = min(low, value), max(high, value)
        if up is not True and value - low >= least:
            count, up, high = count + 1, True, value
            low = value
        elif up is not False and high - value >= least:
            count, up, low = count + 1, False, value
            high = value
    return count
