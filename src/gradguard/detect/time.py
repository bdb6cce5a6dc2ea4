"""What the detectors of vanishing and exploding over the time steps of a sequence have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from gradguard.detect.base import AbstractDetector, PerPlace, told
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.in_time import InTime, Profile
from gradguard.detect.loss_course import LossCourse
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom


@saved
class Evidence(NamedTuple):
    """The profile of a module that counted, by its numbers."""

    layers: tuple[str, ...]
    severity: Severity
    length: float
    horizon: float
    rate: float
    fit: float
    growth: float
    lag: int | None
    left: float
    start: float
    level: float


class AbstractTimeDetector(AbstractDetector):
    """Judges the recurrent modules of a model at sampled steps, and the loss up to then.

    A module is judged by the layer that remembers longest, or explodes most; layers whose sequences are shorter than
    ``min_length`` are passed over. Raised after ``patience`` samples on end. A finding that is over is only told.
    """

    symptom: ClassVar[Symptom]

    def __init__(self, *, patience: int, min_length: int) -> None:
        if patience < 1 or min_length < 2:
            raise ValueError(
                f"{type(self).__name__} needs patience >= 1 and min_length >= 2, got {patience=}, {min_length=}."
            )
        self.patience, self.min_length = patience, min_length
        self.persistence = PerPlace(patience)
        self.course = LossCourse()
        self.optimizer = ""
        self.evidence: dict[str, Evidence] = {}

    @abstractmethod
    def judge(self, module: str, profiles: Sequence[Profile], lag: int | None) -> Evidence | None:
        """Say what is wrong with a module at a sampled step, or None."""

    @abstractmethod
    def explain(self, evidence: Evidence) -> tuple[Mapping[str, object], str]:
        """Give the numbers, and the sentences."""

    def once_over(self, first_step: int) -> Severity:
        """Say how much a finding still matters that is over, by when it began."""
        return Severity.INFO

    def observe(self, block: Block) -> None:
        """Take in the next steps; overflow steps are passed over."""
        self.optimizer = block.layout.optimizer
        counted = block.has_loss & ~block.overflow
        steps, losses, done = block.steps[counted], block.losses[counted], 0
        for sample in block.in_time:
            upto = int((steps <= sample.step).sum())
            self.course.observe(losses[done:upto])
            done = upto
            self._look(sample)
        self.course.observe(losses[done:])

    def _look(self, sample: InTime) -> None:
        for module, profiles in sample.modules.items():
            seen = [p for p in profiles if p.length >= self.min_length and not math.isnan(p.decay.growth)]
            if not seen:
                continue
            evidence = self.judge(module, seen, sample.lag)
            on = self.persistence.observe(module, sample.step, evidence is not None)
            if evidence is not None and (on or module not in self.evidence):
                self.evidence[module] = evidence

    def findings(self) -> tuple[Finding, ...]:
        """Say where, and by how much at the last sample that counted."""
        spells = self.persistence.spells()
        if not spells:
            return ()
        chosen, span = told(spells)
        worst = max((self.evidence[module] for module in chosen), key=lambda e: (e.severity.rank, -e.horizon, e.growth))
        numbers, why = self.explain(worst)
        return (
            Finding(
                self.symptom,
                worst.severity if span[2] else self.once_over(span[0]),
                tuple(layer for module in chosen for layer in self.evidence[module].layers),
                self.optimizer,
                *span,
                numbers,
                why,
            ),
        )


def evidence_of(
    of: Profile, layers: Sequence[str], severity: Severity, lag: int | None, left: float, course: LossCourse
) -> Evidence:
    """Note a profile's numbers, and where the loss stands."""
    rate, fit, horizon, growth = of.decay
    numbers = of.length, horizon, rate, fit, growth
    return Evidence(tuple(layers), severity, *numbers, lag, left, course.start, course.level)
