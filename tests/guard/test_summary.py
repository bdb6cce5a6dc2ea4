"""The end of a run in words: healthy, or what is wrong where, since when, and what to try first."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from gradguard import Guard, Severity, Symptom
from gradguard.detect import ADVICE, AbstractDetector, NonFinite
from gradguard.record import read
from tests.guard.loops import batches, loss_of, mlp
from tests.guard.test_notify import Planned, run


def verdict(guard: Guard) -> list[str]:
    """The verdict and the advice, each as one line."""
    text = guard.summary().replace("\n  ", " ")
    return [line for line in text.splitlines() if line.startswith(("Verdict", "Try first"))]


def test_a_healthy_run_is_called_healthy_plainly() -> None:
    guard = run([NonFinite()], 40, None)
    assert verdict(guard) == ["Verdict: healthy, by 1 rules."]
    assert verdict(run([NonFinite(), Planned("i" * 40)], 40, None)) == ["Verdict: healthy, by 2 rules."]


def test_a_sick_one_says_what_where_since_when_and_what_to_try_first() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, detectors=[NonFinite()])

    def steps(n: int, *, bad: int) -> None:
        for step, batch in enumerate(batches(n)):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            if step < bad:
                model[4].weight.grad.fill_(math.nan)
            weight = model[4].weight.detach().clone()
            optimizer.step()
            with torch.no_grad():
                model[4].weight.copy_(weight)

    steps(7, bad=0)
    steps(3, bad=3)
    told = ["Verdict: non_finite in 4.weight since step 8, ongoing.", f"Try first: {ADVICE[Symptom.NON_FINITE][0]}"]
    assert verdict(guard) == told
    steps(30, bad=0)
    assert verdict(guard) == ["Verdict: non_finite in 4.weight steps 8 to 10, over.", told[1]]


def test_of_several_findings_the_worst_comes_first_and_then_the_cause(tmp_path: Path) -> None:
    plans: list[AbstractDetector] = [
        Planned("." * 5 + "c" * 35, Symptom.NON_FINITE),
        Planned("w" * 40, Symptom.POOR_INITIALISATION),
        Planned("i" * 40, Symptom.UPDATE_TOO_SMALL),
        Planned("." * 9 + "c" * 20 + "C" * 11, Symptom.UPDATE_TOO_LARGE),
    ]
    guard = run(plans, 40, None, run_dir=tmp_path)
    order = [Symptom.UPDATE_TOO_LARGE, Symptom.NON_FINITE, Symptom.POOR_INITIALISATION, Symptom.UPDATE_TOO_SMALL]
    assert [finding.symptom for finding in guard.diagnose()] == order
    said = guard.summary()
    assert verdict(guard) == [
        "Verdict: update_too_large in the whole model steps 1 to 40, over; non_finite in the whole model since step 1, "
        "ongoing; poor_initialisation in the whole model since step 1, ongoing.",
        f"Try first: {ADVICE[Symptom.UPDATE_TOO_LARGE][0]}",
    ]
    places = [said.index(f"] {symptom.value} in") for symptom in order]
    assert places == sorted(places)
    guard.close()
    assert [finding.symptom for finding in read(tmp_path).findings] == order


def test_of_several_optimizers_it_says_whose_finding_it_is() -> None:
    model = mlp()
    optimizers = {
        "a": torch.optim.SGD(model[0].parameters(), lr=0.1),
        "b": torch.optim.SGD(model[2].parameters(), lr=0.1),
    }
    guard = Guard(model, optimizers, detectors=[Planned("c")])
    loss_of(model, batches(1)[0]).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    assert "since step 1, ongoing (a); " in verdict(guard)[0]


def test_the_pace_of_the_weights_is_told() -> None:
    guard = run([NonFinite()], 3, None)
    pace = guard.history["update_norm/relative"].last
    said = f"median {pace.median():.1e}, largest {pace.max():.1e} at step {int(pace.argmax()) + 1}"
    assert f"update/weight at every step, of a small sample: {said}" in guard.summary()


def test_nothing_to_try_is_not_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradguard.detect.finding.ADVICE", {})
    guard = run([Planned("c")], 1, None)
    assert guard.diagnose()[0].severity is Severity.CRITICAL
    assert len(verdict(guard)) == 1


@pytest.mark.parametrize("recorded", [False, True])
def test_rules_that_lack_a_loss_say_so_once(recorded: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer)
    for batch in batches(40):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        if recorded:
            guard.record_loss(loss)
        loss.backward()
        optimizer.step()
    assert guard.summary().count("No loss was recorded") == (not recorded)
    assert "No loss" not in run([NonFinite()], 40, None).summary()
