"""A run in words, as they stand at the top of its page: healthy, or what, where, since when, and what to try first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradguard.detect import Finding, Severity, Symptom
from gradguard.detect.base import EARLY

WORDS: dict[Symptom, str] = {
    Symptom.NON_FINITE: "NaN or Inf in the gradients",
    Symptom.EXPLODING_DEPTH: "the gradient explodes over the layers",
    Symptom.EXPLODING_TIME: "the gradient explodes over time steps",
    Symptom.VANISHING_DEPTH: "the gradient vanishes over the layers",
    Symptom.VANISHING_TIME: "the gradient vanishes over time steps",
    Symptom.DEAD_UNITS: "units are dead",
    Symptom.SATURATED_UNITS: "units are saturated",
    Symptom.SATURATED_GATES: "gates stand still",
    Symptom.POOR_INITIALISATION: "the weights start badly",
    Symptom.UPDATE_TOO_LARGE: "steps are too large",
    Symptom.UPDATE_TOO_SMALL: "weights do not move",
    Symptom.NO_GRADIENT: "parameters get no gradient",
    Symptom.LOSS_SPIKE: "the loss jumped",
    Symptom.OSCILLATING_LOSS: "the loss does not settle",
    Symptom.SLOW_CONVERGENCE: "the loss hardly falls",
    Symptom.CLIPPED_TOO_OFTEN: "nearly all gradients are clipped",
    Symptom.CLIPPED_UPSTREAM: "the loop clips before it is measured",
}


def verdict(findings: Sequence[Finding], steps: int, *, whole: bool = True) -> dict[str, Any]:
    """Say how a run is: state, title, a sentence for each finding that matters, and what to try first.

    Args:
        findings: the worst first.
        steps: that were made.
        whole: whether the run came to its end, and all of its record could be read.

    Host sync: none. Mutates: nothing.

    >>> verdict([], 1000)["title"]
    'Healthy'
    """
    serious = [finding for finding in findings if finding.severity is not Severity.INFO]
    if serious:
        others = len(serious) - 1
        rest = "" if not others else ", and one more finding" if others == 1 else f", and {others} more findings"
        title = WORDS[serious[0].symptom] + rest
        said = [_sentence(finding) for finding in serious]
        return _said(serious[0].severity.value, _capital(title), said, serious[0].advice)
    if not steps:
        return _said("empty", "No step was made", ["There is nothing to judge yet."])
    if steps < EARLY:
        return _said("info", "Too few steps for a verdict", [f"Nothing was found in {steps} steps."])
    noted = [f"Noted: {_sentence(finding)}" for finding in findings]
    said = [f"Nothing was found in {steps:,} steps.", *noted]
    if not whole:
        return _said("info", "Nothing was found, in what there is", said)
    return _said("healthy", "Healthy", said)


def title_of(finding: Finding) -> str:
    """Say in a few words what is wrong."""
    return _capital(WORDS[finding.symptom])


def _sentence(finding: Finding) -> str:
    """Say what, where and since when, and why."""
    where_and_when = finding.brief.removeprefix(f"{finding.symptom.value} ")
    return f"{title_of(finding)}, {where_and_when}. {finding.explanation}"


def _said(state: str, title: str, text: Sequence[str], first: Sequence[str] = ()) -> dict[str, Any]:
    return {"state": state, "title": title, "text": list(text), "first": list(first)}


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
