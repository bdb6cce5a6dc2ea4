"""What is written is what is read, whatever came and went; the folder stays small."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import gradguard
from gradguard.detect import Severity
from gradguard.record import Event, read, writer
from tests.detect.blocks import layout
from tests.record.records import OF, blocks, feed, finding, journal, same, size, tensor_bytes


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    made, (first, second) = journal(tmp_path / "deep" / "run"), blocks(2)
    feed(made, [first], [finding(2, 10, size=1e-9)])
    feed(made, [second], [finding(2, 20, size=1e-10)])
    run = read(tmp_path / "deep" / "run")
    same(run.history, made.history)
    totals = torch.cat([first.totals, second.totals])
    assert run.history["grad_norm/total"].steps.tolist() == list(range(1, 21))
    assert torch.equal(run.history["grad_norm/total"].last, totals)
    assert torch.equal(run.history["grad_norm/layer1.bias"].high[10:], second.grad_norms[:, 3].float())
    assert run.history["update_ratio/layer0.weight"].steps.tolist() == [10, 20]
    assert run.history["loss"].last.tolist() == torch.cat([first.losses, second.losses]).tolist()
    assert run.events == (Event(10, finding(2, 10, size=1e-9)),) == tuple(made.events)
    assert run.findings == (finding(2, 20, size=1e-10),), "as it stands, not as it was raised"
    assert run.layouts == {"optimizer": OF}
    assert run.problems == ()
    made.close("finished")
    same(read(tmp_path / "deep" / "run" / "manifest.json").history, made.history)


def test_the_manifest_says_what_the_run_was_made_with(tmp_path: Path) -> None:
    made = journal(tmp_path)
    feed(made, blocks(1))
    manifest = read(tmp_path).manifest
    assert (manifest.run, manifest.status, manifest.device, manifest.format) == (made.run, "running", "cpu", 1)
    assert manifest.versions["gradguard"] == gradguard.__version__
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.created[:4] == manifest.updated[:4] >= "2024"
    assert manifest.created.endswith("+00:00")
    made.close("failed: KeyError")
    after = read(tmp_path).manifest
    assert after.status == "failed: KeyError"
    assert (after.run, after.created, after.segments) == (manifest.run, manifest.created, manifest.segments)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *manifest.segments}


def test_findings_that_end_and_all_of_one_symptom_are_told(tmp_path: Path) -> None:
    made = journal(tmp_path)
    first, second, third = finding(1, 5, active=False), finding(3, 9), finding(7, 7)
    third = replace(third, severity=Severity.CRITICAL)
    feed(made, blocks(1), [second, first, third])
    assert read(tmp_path).findings == (third, first, second), "the worst first, then by their first step"
    feed(made, blocks(1, first_step=11), [])
    assert read(tmp_path).findings == ()
    made.close("finished")


def test_parameters_that_come_and_go_and_other_optimizers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LEAST", 20_000)
    made, wider = journal(tmp_path, points=1024), layout(4, bias=True)
    of_b = layout(2)
    of_b = replace(of_b, optimizer="b", norm_type=torch.inf, resolution=2.0**-7)
    for i in range(12):
        feed(made, blocks(1, (OF, wider, OF)[i // 4], first_step=10 * i + 1, seed=i), prefix="a/")
        feed(made, blocks(1, of_b, every=7, first_step=7 * i + 1, seed=i), prefix="b/")
    run = read(tmp_path)
    same(run.history, made.history)
    assert run.layouts == {"optimizer": OF, "b": of_b}
    known = run.history["a/grad_norm/layer3.bias"]
    there = (known.steps > 40) & (known.steps <= 80)
    assert torch.equal(known.high.isfinite(), there)
    assert run.problems == ()
    made.close("finished")


def test_a_short_run_is_kept_whole_through_many_compactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LEAST", 1)
    made, seen = journal(tmp_path, points=1024), set()
    for one in blocks(40):
        feed(made, [one], [finding(1, int(one.steps[-1]))])
        run = read(tmp_path)
        same(run.history, made.history)
        assert run.findings[0].last_step == one.steps[-1]
        assert (run.layouts, len(run.events), run.problems) == ({"optimizer": OF}, 1, ())
        seen.add(run.manifest.segments)
    assert len(seen) >= 3, "this was meant to compact"
    made.close("finished")


def test_a_long_run_stays_small_and_keeps_every_extreme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "LEAST", 20_000)
    made, those = journal(tmp_path, points=32), blocks(600)
    largest, heaviest, seen = 0, 0, set()
    for one in those:
        feed(made, [one])
        seen.add(made.writer.manifest.segments if made.writer else ())
        largest, heaviest = max(largest, size(tmp_path)), max(heaviest, tensor_bytes(made.history))
    assert len(seen) > 10, "this was meant to compact"
    assert largest < 100_000
    assert heaviest < 13_000
    expected = {"grad_norm/total": torch.cat([b.totals for b in those]), "loss": torch.cat([b.losses for b in those])}
    for i, name in enumerate(OF.names):
        expected[f"grad_norm/{name}"] = torch.cat([b.grad_norms[:, i] for b in those]).float()
    run = read(tmp_path)
    for key, values in expected.items():
        points, start = run.history[key], 0
        assert 16 <= len(points.steps) <= 200
        assert points.steps.diff().min() >= 10, "one point a flush by now, and not one a step"
        for stop, last, low, high in zip(*(field.tolist() for field in points), strict=True):
            span = values[start:stop]
            assert (last, low, high) == (span[-1], span.min(), span.max())
            start = stop
        assert start == 6000
    made.close("finished")


def test_events_of_a_finding_that_comes_and_goes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradguard.guard.journal.EVENTS", 20)
    monkeypatch.setattr(writer, "LEAST", 1)
    made, steady = journal(tmp_path), finding(1, 3)
    steady = replace(steady, optimizer="steady")
    feed(made, blocks(1), [steady])
    for i, one in enumerate(blocks(70, every=1, first_step=11)):
        feed(made, [one], [finding(active=bool(i % 2))])
    assert len(made.events) == 20
    assert made.events[0].finding == steady, "the last of each stays"
    assert [event.step for event in made.events[1:]] == list(range(62, 81))
    assert len(read(tmp_path).events) < 60, "and compactions drop the others from the record"
    assert read(tmp_path).events[-20:][1:] == tuple(made.events[1:])
    made.close("finished")
