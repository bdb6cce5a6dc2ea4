"""Runs with somebody watching: they end as without, and recorded blocks say what the guard has said."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from benchmarks import diagnosis
from benchmarks.faults import recording, tables
from benchmarks.faults.corpus import Unit
from benchmarks.faults.guarded import Guarded
from benchmarks.faults.peers import AutoTrainer, Debugger
from benchmarks.faults.program import Program
from benchmarks.faults.running import run
from gradguard.detect import Severity, default_detectors

NAMES = ("tiny-lively", "tiny-deep")


class Losses:
    """Watches the losses alone."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def start(self, program: object, loop: object) -> None: ...

    def record(self, step: int, loss: torch.Tensor, optimizer: str | None) -> None:
        self.losses.append(float(loss))

    def after(self, step: int) -> None: ...

    def end(self) -> None: ...


@pytest.mark.parametrize("name", NAMES)
def test_no_watcher_changes_a_run(programs: dict[str, Program], name: str) -> None:
    alone, watched = Losses(), Losses()
    score = run(programs[name], 1e-2, 0, [alone])
    assert run(programs[name], 1e-2, 0, [AutoTrainer(), Debugger(), Guarded(), watched]) == score
    assert watched.losses == alone.losses


@pytest.mark.parametrize("name", NAMES)
def test_blocks_say_what_the_guard_said(programs: dict[str, Program], tmp_path: Path, name: str) -> None:
    unit, guarded = Unit(name, 1e-2, 0), Guarded()
    run(programs[name], 1e-2, 0, [guarded])
    recording.save(unit, str(tmp_path))
    said = recording.replay(tmp_path, default_detectors(through_time=True))[unit]
    assert {symptom: step for symptom, (step, severity) in said.items() if severity.rank} == guarded.raised
    assert set(said) == set(guarded.noted)


def test_severity_is_the_worst_and_the_step_that_of_the_first_warning(programs: dict[str, Program]) -> None:
    guarded = Guarded()
    run(programs["tiny-deep"], 1e-2, 0, [guarded])
    assert guarded.raised["vanishing_depth"] == 50
    recorder = recording.Recorder()
    run(programs["tiny-deep"], 1e-2, 0, [recorder])
    assert [step for step, _, _ in recorder.blocks] == [50, 100, 120]
    said = recording.said_of(recorder.blocks, default_detectors())
    assert said["vanishing_depth"] == (50, Severity.CRITICAL)


def test_diagnosis(programs: dict[str, Program], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    outcomes = [diagnosis.work(Unit(name, 1e-2, 0)) for name in NAMES]
    assert outcomes[0].verdict.label is None
    assert outcomes[1].verdict.raised["GradGuard"]["vanishing_depth"] == 50
    known = {o.verdict.unit: round(o.score, 4) for o in outcomes}
    monkeypatch.setattr(diagnosis, "scores", lambda: known)
    assert diagnosis.changed(outcomes) == []
    known[outcomes[0].verdict.unit] += 0.001
    (line,) = diagnosis.changed(outcomes)
    assert "tiny-lively" in line
    monkeypatch.setattr(diagnosis, "confirmed", lambda: {("tiny-lively", 1e-2)})
    counted = diagnosis.census("both")
    assert "left out: tiny-deep at 0.01." in counted
    verdicts = [outcome.verdict for outcome in outcomes]
    tables.save(verdicts, tmp_path / "verdicts.json")
    text = diagnosis.report(verdicts, "both", counted=counted)
    assert diagnosis.report(tables.load(tmp_path / "verdicts.json"), "both", counted=counted) == text
    assert "| vanishing_depth | 100.0" in text


def test_views_are_packed_without_what_they_are_views_of() -> None:
    view = torch.arange(100_000.0)[7::50_000]
    packed = recording.packed({"view": view, "one": view[0]})
    assert len(packed) < 1000
    found = pickle.loads(packed)
    assert torch.equal(found["view"], view)
    assert found["one"].shape == ()
