"""A guard that is saved and loaded goes on bit for bit, wherever it was saved and whatever it was looking at."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradguard import Symptom
from gradguard.detect import ClippedUpstream, NoGradient, NonFinite, VanishingDepth, default_detectors
from gradguard.detect.state import from_plain, to_plain
from gradguard.record import read
from tests.detect.blocks import block, layout, noisy
from tests.guard.resumable import STEPS, Freezing, FreezingLate, Fused, Huge, Loop, Scaled, Two
from tests.record.records import bits, same


def through_a_file(state: Any, folder: Path) -> Any:
    torch.save(state, folder / "state.pt")
    return torch.load(folder / "state.pt", weights_only=True)


def equal(found: Any, expected: Any, at: str = "state") -> None:
    """Containers of numbers and tensors, bit for bit."""
    assert type(found) is type(expected), at
    if isinstance(expected, dict):
        assert list(found) == list(expected), at
        for key in expected:
            equal(found[key], expected[key], f"{at}/{key}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), at
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            equal(one, other, f"{at}/{i}")
    elif isinstance(expected, Tensor):
        assert (found.shape, found.dtype) == (expected.shape, expected.dtype), at
        assert torch.equal(bits(found), bits(expected)), at
    else:
        assert repr(found) == repr(expected), at


CASES = [(kind, kind) for kind in (Loop, Scaled, Fused, Freezing, Two, Huge)] + [(Freezing, FreezingLate)]


@pytest.mark.parametrize("at", [3, 7, 12, 28, 33, 38])
@pytest.mark.parametrize(("kind", "resumed_as"), CASES, ids=lambda kind: kind.__name__)
def test_it_goes_on_bit_for_bit(kind: type[Loop], resumed_as: type[Loop], at: int, tmp_path: Path) -> None:
    never_saved, saved, resumed = kind(), kind(), resumed_as()
    never_saved.train(1, STEPS)
    saved.train(1, at)
    state = through_a_file(saved.state_dict(), tmp_path)
    saved.train(at + 1, STEPS)
    resumed.prepare(at)
    resumed.load_state_dict(state)
    assert resumed.guard.steps == {name: track["step"] for name, track in state["guard"]["tracks"].items()}
    equal(resumed.guard.state_dict(), state["guard"])
    resumed.train(at + 1, STEPS)
    for other in (never_saved, saved):
        same(resumed.guard.history, other.guard.history)
        assert repr(resumed.guard.diagnose()) == repr(other.guard.diagnose())
        assert resumed.guard.summary() == other.guard.summary()
    assert repr(resumed.guard.events) == repr(saved.guard.events)
    states = [one.guard.state_dict() for one in (resumed, saved, never_saved)]
    equal(states[0], states[1])
    for one in states:  # the name of the run, and at which flush an event was noticed
        del one["journal"]["run"], one["journal"]["events"]
    equal(states[0], states[2])


def test_the_loops_have_something_to_save() -> None:
    found = {}
    for kind in (Loop, Scaled, Freezing, Huge):
        loop = kind()
        loop.train(1, STEPS)
        found[kind] = {f.symptom for f in loop.guard.diagnose()}, loop.guard.summary()
    assert {Symptom.NO_GRADIENT, Symptom.CLIPPED_UPSTREAM} <= found[Loop][0]
    assert Symptom.NON_FINITE in found[Huge][0]
    assert "overflows, skipped by the loss scaler" in found[Scaled][1]


def test_what_belongs_to_another_guard_is_refused_and_changes_nothing() -> None:
    one, two = Loop(), Two()
    one.train(1, 10)
    before = one.guard.state_dict()
    with pytest.raises(ValueError, match=r"needs the state of a guard over optimizer, got one over a, b\. Guard the"):
        one.guard.load_state_dict(two.guard.state_dict())
    with pytest.raises(ValueError, match="needs a guard's state of version 1, got version 2"):
        one.guard.load_state_dict({**before, "version": 2})
    with pytest.raises(ValueError, match="needs a guard's state of version 1, got version None"):
        one.guard.load_state_dict({})
    equal(one.guard.state_dict(), before)


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(TypeError, match="needs what state_dict"):
        Loop().guard.load_state_dict([])


def test_a_rollback_takes_the_record_with_it(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path, points=1024)
    loop.train(1, 12)
    state = through_a_file(loop.state_dict(), tmp_path)
    loop.train(13, 30)
    before = read(tmp_path)
    assert before.history["loss"].steps[-1] == 28
    loop.load_state_dict(state)
    assert read(tmp_path).manifest.status == "rolled back"
    same(read(tmp_path).history, before.history)
    loop.train(13, 14)
    after = read(tmp_path)
    assert (after.history["loss"].steps.tolist(), after.problems) == (list(range(1, 15)), ())
    loop.train(15, 60)
    loop.guard.close()
    after = read(tmp_path)
    assert (after.manifest.run, after.manifest.created) == (before.manifest.run, before.manifest.created)
    assert (after.manifest.status, after.findings) == ("finished", tuple(loop.guard.diagnose()))
    assert after.events == loop.guard.events
    straight = Loop(points=1024)
    straight.train(1, 60)
    same(loop.guard.history, straight.guard.history)
    assert after.history["loss"].steps[-1] == 60


def test_a_resumed_record_has_everything_before_its_first_flush(tmp_path: Path) -> None:
    loop = Loop(run_dir=tmp_path, points=1024)
    loop.train(1, 30)
    state = loop.state_dict()
    loop.guard.close()
    before = read(tmp_path)
    assert before.findings
    resumed = Loop(run_dir=tmp_path, points=1024)
    resumed.load_state_dict(state)
    resumed.train(31, 31)
    after = read(tmp_path)
    same(after.history, before.history)
    assert (after.layouts, after.events, after.findings) == (before.layouts, before.events, before.findings)
    assert after.manifest.status == "running"
    resumed.guard.close()


def test_a_detector_that_was_not_there_starts_afresh_and_one_that_is_gone_is_left_out() -> None:
    saved = Loop(detectors=[NoGradient(), NonFinite()])
    saved.train(1, 30)
    resumed = Loop(detectors=[NonFinite(), ClippedUpstream(), NoGradient()])
    resumed.train(1, 8)  # and so does what it has seen in the meantime
    resumed.load_state_dict(saved.state_dict())
    _, clipped, without = (one["state"] for one in resumed.guard.state_dict()["tracks"]["optimizer"]["detectors"])
    equal(clipped, ClippedUpstream().state_dict())
    equal(without, saved.guard.state_dict()["tracks"]["optimizer"]["detectors"][0]["state"])
    (finding,) = resumed.guard.diagnose()
    assert (finding.symptom, finding.first_step, finding.last_step) == (Symptom.NO_GRADIENT, 1, 30)


def test_settings_are_those_of_the_code() -> None:
    of = layout(8, bias=True)
    saved, resumed = VanishingDepth(), VanishingDepth(decades=4, patience=10)
    saved.observe(block(of, noisy(60, of, 3.5)))
    resumed.load_state_dict(saved.state_dict())
    assert (resumed.decades, resumed.persistence.window.maxlen, len(resumed.persistence.window)) == (4, 10, 10)
    for detector, active in ((saved, True), (resumed, False)):
        detector.observe(block(of, noisy(30, of, 3.5), first_step=61))
        assert [finding.active for finding in detector.findings()] == [active]
    loop = Loop(detectors=[NoGradient(patience=100)])
    loop.train(1, 14)
    other = Loop(detectors=[NoGradient(patience=16)])
    other.load_state_dict(loop.state_dict())
    other.train(15, 15)
    assert other.guard.diagnose() == []
    other.train(16, 16)
    assert [finding.first_step for finding in other.guard.diagnose()] == [1]
    assert {type(d) for d in default_detectors()} >= {NoGradient}


def test_what_a_detector_holds_comes_back_with_its_kind_and_on_the_host(tmp_path: Path) -> None:
    held = {"windows": {"a": deque([1, 2], maxlen=3)}, "names": frozenset("ba"), "pairs": ((1, 2.5), [None, True])}
    back = from_plain(through_a_file(to_plain(held), tmp_path))
    assert back == held
    back["windows"]["a"].extend([3, 4])
    assert list(back["windows"]["a"]) == [2, 3, 4]
    tensor = torch.ones(2)
    for copied in (to_plain(tensor), from_plain(tensor)):
        copied += 1
        assert tensor.tolist() == [1, 1]
    with pytest.raises(TypeError, match="state needs numbers, strings, tensors and containers of them, got complex"):
        to_plain([1j])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_checkpoint_that_is_loaded_onto_a_gpu_comes_back_to_the_host(tmp_path: Path) -> None:
    saved, resumed = Loop(), Loop()
    saved.train(1, 20)
    torch.save(saved.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True, map_location="cuda"))
    for loop in (saved, resumed):
        loop.train(21, STEPS)
    same(resumed.guard.history, saved.guard.history)
    assert repr(resumed.guard.diagnose()) == repr(saved.guard.diagnose())
