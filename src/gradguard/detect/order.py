"""In which order findings are told: the worst first, and of equally bad ones the cause before its effects."""

from __future__ import annotations

from collections.abc import Iterable

from gradguard.detect.finding import Finding
from gradguard.detect.symptom import Symptom

# From what brings the others about to what is brought about. A start that is poor makes signals and gradients grow or
# fade; gradients that grow make steps too large; these kill and saturate units and gates; then gradients fade, weights
# stand still, the loss swings, and in the end nothing is finite or nothing is learnt. What clips is not ill itself.
CAUSES_FIRST: tuple[Symptom, ...] = (
    Symptom.POOR_INITIALISATION,
    Symptom.EXPLODING_DEPTH,
    Symptom.EXPLODING_TIME,
    Symptom.UPDATE_TOO_LARGE,
    Symptom.DEAD_UNITS,
    Symptom.SATURATED_UNITS,
    Symptom.SATURATED_GATES,
    Symptom.VANISHING_DEPTH,
    Symptom.VANISHING_TIME,
    Symptom.NO_GRADIENT,
    Symptom.UPDATE_TOO_SMALL,
    Symptom.OSCILLATING_LOSS,
    Symptom.LOSS_SPIKE,
    Symptom.NON_FINITE,
    Symptom.SLOW_CONVERGENCE,
    Symptom.CLIPPED_TOO_OFTEN,
    Symptom.CLIPPED_UPSTREAM,
)


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Sort by severity, then causes before effects (:data:`CAUSES_FIRST`), then by the step at which each began.

    The step decides last: what comes of a fault is often noticed before the fault, by a rule that waits less long.
    """
    rank = {symptom: i for i, symptom in enumerate(CAUSES_FIRST)}
    return sorted(findings, key=lambda one: (-one.severity.rank, rank[one.symptom], one.first_step))
