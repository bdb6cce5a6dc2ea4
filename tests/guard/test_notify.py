"""Findings are told as they are noticed: once each, again where they get worse, and never at the cost of the run."""

from __future__ import annotations

import math
import warnings
from typing import Any, final

import pytest
import torch

from gradguard import Finding, GradGuardWarning, Guard, Severity, Symptom
from gradguard.detect import AbstractDetector, Block, NonFinite
from tests.guard.loops import batches, loss_of, mlp

LEVELS = {".": None, "i": Severity.INFO, "w": Severity.WARNING, "c": Severity.CRITICAL}


@final
class Planned(AbstractDetector):
    """Says at each step what the letter of the plan says: info, warning or critical; capitals: it is over."""

    def __init__(self, plan: str, symptom: Symptom = Symptom.LOSS_SPIKE) -> None:
        self.plan, self.symptom = plan, symptom
        self.step, self.optimizer = 0, ""

    def observe(self, block: Block) -> None:
        self.step, self.optimizer = int(block.steps[-1]), block.layout.optimizer

    def findings(self) -> tuple[Finding, ...]:
        letter = self.plan[self.step - 1] if self.step else "."
        severity = LEVELS[letter.lower()]
        if severity is None:
            return ()
        return (Finding(self.symptom, severity, (), self.optimizer, 1, self.step, letter.islower()),)


def run(detectors: list[AbstractDetector], n: int, notify: Any, **settings: Any) -> Guard:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, detectors=detectors, notify=notify, **{"every_n_steps": 1, **settings})
    for batch in batches(n):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    return guard


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("....", []),
        ("..ww", ["3 warning"]),
        ("iwcc", ["1 info", "2 warning", "3 critical"]),
        ("ccww", ["1 critical"]),  # better is no news
        ("wWww", ["1 warning"]),  # nor is it that it is over, or back
        ("wW.c", ["1 warning", "4 critical"]),
        (".WWw", ["2 warning"]),  # over before the flush was
    ],
)
def test_what_is_raised_or_gets_worse_is_told_at_its_flush(plan: str, told: list[str]) -> None:
    found: list[Finding] = []
    guard = run([Planned(plan)], 4, found.append)
    assert [f"{f.last_step} {f.severity.value}" for f in found] == told
    noticed = [event.finding for event in guard.events]
    assert all(finding in noticed for finding in found)


def test_it_is_told_in_the_step_that_flushes_and_to_everybody() -> None:
    log: list[tuple[str, int]] = []
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    notify = [
        lambda f: log.append((f"a {f.symptom.value}", done)),
        lambda f: log.append((f"b {f.symptom.value}", done)),
    ]
    guard = Guard(model, optimizer, detectors=[NonFinite()], every_n_steps=4, notify=notify)
    for done, batch in enumerate(batches(10)):
        optimizer.zero_grad()
        (loss_of(model, batch) * (math.nan if done == 1 else 1.0)).backward()
        optimizer.step()
    assert log == [("a non_finite", 3), ("b non_finite", 3)]
    guard.close()
    assert len(log) == 2


@final
class Twice(AbstractDetector):
    """Has two findings of one symptom from the first step on, as a detector of two causes may."""

    def observe(self, block: Block) -> None:
        self.step = int(block.steps[-1])

    def findings(self) -> tuple[Finding, ...]:
        levels = (Severity.WARNING, Severity.INFO) if hasattr(self, "step") else ()
        return tuple(Finding(Symptom.NON_FINITE, level, (), "optimizer", 1, 1, True) for level in levels)


def test_what_two_findings_of_a_flush_share_is_told_once() -> None:
    found: list[Finding] = []
    run([Twice()], 2, found.append)
    assert [f.severity for f in found] == [Severity.WARNING]


def test_symptoms_and_optimizers_are_told_apart_and_a_resumed_run_tells_nothing_twice() -> None:
    found: list[Finding] = []
    detectors = [Planned("wwwcc"), Planned("..www", Symptom.DEAD_UNITS)]
    guard = run(detectors, 3, found.append)
    assert [f.symptom.value for f in found] == ["loss_spike", "dead_units"]
    state = guard.state_dict()
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    resumed = Guard(model, optimizer, detectors=detectors, every_n_steps=1, notify=found.append)
    resumed.load_state_dict(state)
    for batch in batches(2):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    assert [(f.symptom.value, f.severity.value) for f in found[2:]] == [("loss_spike", "critical")]


def test_one_that_fails_warns_once_and_never_stops_training() -> None:
    found: list[Finding] = []

    def broken(finding: Finding) -> None:
        raise OSError("no route to host")

    with pytest.warns(
        GradGuardWarning, match="notify=broken raised OSError: no route to host.* Training goes on"
    ) as said:
        guard = run([Planned("iwc")], 3, (broken, found.append))
    assert len(said) == 1
    assert guard.steps == {"optimizer": 3}
    assert len(found) == 3  # the others hear of it all the same


def test_it_may_ask_the_guard() -> None:
    seen: list[int] = []
    guards: list[Guard] = []

    def ask(finding: Finding) -> None:
        seen.append(len(guards[0].diagnose()) + len(guards[0].history["grad_norm/total"].steps))

    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guards.append(Guard(model, optimizer, detectors=[Planned(".w..")], every_n_steps=2, notify=ask))
    for batch in batches(4):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.step()
    assert seen == [3]


def test_without_one_a_guard_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run([Planned("ccc")], 3, None).diagnose()
    assert caplog.text == capsys.readouterr().out == ""


def test_weights_are_bit_for_bit_those_of_a_run_that_tells_nobody() -> None:
    def weights(**settings: Any) -> list[torch.Tensor]:
        torch.manual_seed(0)
        guard = run([Planned("iww..")], 5, settings.pop("notify", None), **settings)
        (track,) = guard._tracks
        return [p.detach().clone() for p in track.params]

    pairs = zip(weights(), weights(notify=lambda f: None, strict=True), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
