"""What a detector says: symptom, place, steps, the numbers behind it, and what to try first."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from gradguard.detect.advice import ADVICE
from gradguard.detect.html import finding_html
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom
from gradguard.detect.wording import listed, number


@saved
class Severity(str, Enum):
    """How much a finding matters; a healthy run yields nothing above ``INFO``."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """0 for info, 1 for warning, 2 for critical."""
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One symptom of one optimizer's parameters. ``print(finding)`` says it in words that a person can act on.

    Attributes:
        symptom: what is wrong.
        severity: how much it matters.
        where: the places, worst or first one first, spelled as ``named_modules`` or ``named_parameters`` spells them;
            ``lstm.l0`` is the first layer inside a stacked recurrent module.
        optimizer: name of the optimizer whose parameters these are.
        first_step: optimizer step, counted from 1, at which the condition first held.
        last_step: last step at which it held.
        active: whether it still holds.
        evidence: the numbers behind it, by name.
        explanation: what happened, in one or two sentences.
    """

    symptom: Symptom
    severity: Severity
    where: tuple[str, ...]
    optimizer: str
    first_step: int
    last_step: int
    active: bool
    evidence: Mapping[str, object] = field(default_factory=dict)
    explanation: str = ""

    @property
    def advice(self) -> tuple[str, ...]:
        """What to try, in the order in which the field would try it."""
        return ADVICE.get(self.symptom, ())

    @property
    def brief(self) -> str:
        """What, where, since when, and whether it still holds, on one line."""
        when = f"since step {self.first_step}, ongoing"
        if not self.active:
            span = f"at step {self.first_step}" if self.first_step == self.last_step else ""
            when = f"{span or f'steps {self.first_step} to {self.last_step}'}, over"
        return f"{self.symptom.value} in {listed(self.where)} {when}"

    @property
    def headline(self) -> str:
        """What, where, since when and why, without the numbers and the advice."""
        steps = f"steps {self.first_step} to {self.last_step}"
        if self.first_step == self.last_step:
            steps = f"step {self.first_step}"
        still = "ongoing" if self.active else "over"
        head = f"[{self.severity.value}] {self.symptom.value} in {listed(self.where)}: {steps}, {still}"
        return _wrapped(head, "", "  ") + "\n" + _wrapped(self.explanation, "  ", "  ")

    def __str__(self) -> str:
        numbers = "; ".join(f"{name} {number(value)}" for name, value in self.evidence.items())
        return "\n".join(
            [
                self.headline,
                *([_wrapped(f"evidence: {numbers}", "  ", "    ")] if numbers else []),
                *(["  try first:"] if self.advice else []),
                *(_wrapped(f"{i}. {sentence}", "    ", "       ") for i, sentence in enumerate(self.advice, start=1)),
            ]
        )

    def _repr_html_(self) -> str:
        """Give the same for a notebook."""
        return finding_html(self)


def _wrapped(text: str, first: str, rest: str) -> str:
    return textwrap.fill(
        text, 100, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False, break_long_words=False
    )
