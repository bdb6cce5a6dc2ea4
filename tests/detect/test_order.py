"""The order in which findings are told."""

from __future__ import annotations

import random

import pytest

from gradguard.detect import Finding, Severity, Symptom
from gradguard.detect.order import CAUSES_FIRST, in_order


def finding(symptom: Symptom, severity: Severity = Severity.WARNING, first: int = 1) -> Finding:
    return Finding(symptom, severity, (), "optimizer", first, 99, True)


def test_every_symptom_has_its_place() -> None:
    assert len(CAUSES_FIRST) == len(Symptom)
    assert set(CAUSES_FIRST) == set(Symptom)


@pytest.mark.parametrize(
    "chain",
    [
        "poor_initialisation vanishing_depth no_gradient",
        "poor_initialisation exploding_depth update_too_large non_finite",
        "update_too_large dead_units no_gradient",
        "update_too_large saturated_units vanishing_depth update_too_small",
        "update_too_large loss_spike non_finite",
        "saturated_gates vanishing_time slow_convergence",
        "exploding_time non_finite clipped_too_often clipped_upstream",
    ],
)
def test_causes_come_before_their_effects_also_where_these_are_noticed_first(chain: str) -> None:
    symptoms = [Symptom(name) for name in chain.split()]
    findings = [finding(symptom, first=100 - i) for i, symptom in enumerate(symptoms)]
    random.Random(0).shuffle(findings)
    assert [one.symptom for one in in_order(findings)] == symptoms


def test_what_is_worse_comes_first_and_of_one_symptom_what_began_first() -> None:
    last_of_all = finding(Symptom.CLIPPED_UPSTREAM, Severity.CRITICAL)
    cause = finding(Symptom.POOR_INITIALISATION)
    note = finding(Symptom.POOR_INITIALISATION, Severity.INFO)
    late, early = finding(Symptom.NON_FINITE, first=9), finding(Symptom.NON_FINITE, first=2)
    assert in_order([late, note, early, cause, last_of_all]) == [last_of_all, cause, early, late, note]
