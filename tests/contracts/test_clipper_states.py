"""What every clipper promises about its state: copies go on alone, a checkpoint goes on bit for bit."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradguard import GradGuardWarning
from gradguard.clip import AbstractRescaler, AutoClip, Ema, MedianMad, ZClip
from tests.contracts.clippers import CLIPPERS, PER_TENSOR, SHAPES, WARMUP, Loop, bits, gradients

EACH = pytest.mark.parametrize("kind", CLIPPERS)
STEPS = 30


def eventful(step: int) -> list[Tensor | None]:
    """Give ordinary steps, spikes, a NaN, missing gradients, and a lasting change of level."""
    grads: list[Tensor | None] = list(gradients(step, 4.0 if step in (6, 13) else 400.0 if step > 18 else 1.0))
    if step == 3:
        grads[1] = None
    if step == 9:
        grads[0] = torch.full_like(gradients(step)[0], math.nan)
    return grads


def go_on(loop: Loop, first: int, last: int = STEPS) -> list[Any]:
    """Make the steps; give all gradients and the state after them, in bits."""
    seen = []
    for step in range(first, last):
        loop.step(eventful(step))
        seen.append([bits(grad) for grad in loop.grads])
    return [*seen, loop.state]


@EACH
def test_the_run_has_something_to_remember(kind: str) -> None:
    """A clipper that forgot everything at step 12 would clip otherwise; but for those that learn nothing."""
    if kind.startswith(("NormClip", "ValueClip", "AGC", "NormBand")) or kind.endswith("alone"):
        assert not Loop(CLIPPERS[kind]()).warm().clipper.state_dict().get("numbers")
        return
    loop = Loop(CLIPPERS[kind]())
    go_on(loop, 0, 12)
    assert go_on(loop, 12) != go_on(Loop(CLIPPERS[kind]()), 12)
    assert loop.clipper.level_changes > 0


@EACH
@pytest.mark.parametrize("at", [0, 2, WARMUP, 12])
@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_a_copy_goes_on_alone_bit_for_bit(kind: str, at: int, way: str) -> None:
    loop = Loop(CLIPPERS[kind]())
    go_on(loop, 0, at)
    before = loop.state
    copied = copy.deepcopy(loop.clipper) if way == "deepcopy" else pickle.loads(pickle.dumps(loop.clipper))
    of_copy = go_on(Loop(copied), at)
    assert loop.state == before
    assert go_on(loop, at) == of_copy


@EACH
@pytest.mark.parametrize("at", [0, 12])
def test_a_fresh_one_has_the_settings_and_has_seen_nothing(kind: str, at: int) -> None:
    loop = Loop(CLIPPERS[kind]())
    go_on(loop, 0, at)
    before, fresh = loop.state, loop.clipper.fresh()
    assert repr(fresh) == repr(loop.clipper)
    assert fresh.state_dict() == {}
    assert go_on(Loop(fresh), 0) == go_on(Loop(CLIPPERS[kind]()), 0)
    assert loop.state == before


@EACH
@pytest.mark.parametrize("at", [0, 1, 2, 3, WARMUP, WARMUP + 1, 10, 21])
@pytest.mark.parametrize("bound", [False, True], ids=["loaded before the first step", "loaded once bound"])
def test_a_checkpoint_goes_on_bit_for_bit(kind: str, at: int, bound: bool, tmp_path: Path) -> None:
    loop, resumed = Loop(CLIPPERS[kind]()), CLIPPERS[kind]()
    go_on(loop, 0, at)
    torch.save(loop.clipper.state_dict(), tmp_path / "state.pt")
    uninterrupted = go_on(loop, at)
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    if bound:
        other = Loop(resumed).warm()
        resumed.load_state_dict(saved)
    else:
        resumed.load_state_dict(saved)
        assert dict(saved) == resumed.state_dict() or at
        other = Loop(resumed)
    assert go_on(other, at) == uninterrupted


@EACH
def test_a_saved_state_does_not_change_as_the_run_goes_on(kind: str) -> None:
    loop = Loop(CLIPPERS[kind]())
    go_on(loop, 0, 10)
    saved, then = loop.clipper.state_dict(), loop.state
    go_on(loop, 10)
    other = Loop(CLIPPERS[kind]())
    other.clipper.load_state_dict(saved)
    assert other.state == then
    go_on(other, 10)
    assert Loop(copy.deepcopy(other.clipper)).state == other.state
    again = Loop(CLIPPERS[kind]())
    again.clipper.load_state_dict(saved)
    assert again.state == then


OTHERS = {
    "one more": {**SHAPES, "last.bias": (2,)},
    "one less": dict(list(SHAPES.items())[:2]),
    "others": {"first.weight": (3, 2), "new.weight": (2, 2)},
    "another order": dict([*SHAPES.items()][1:] + [*SHAPES.items()][:1]),
}


@EACH
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("bound", [False, True], ids=["loaded before the first step", "loaded once bound"])
def test_parameters_may_have_come_and_gone(kind: str, others: str, bound: bool) -> None:
    loop, resumed = Loop(CLIPPERS[kind]()), CLIPPERS[kind]()
    go_on(loop, 0, 12)
    saved, shapes = loop.clipper.state_dict(), OTHERS[others]

    def load() -> Loop:
        if bound:
            found = Loop(resumed, shapes=shapes)
            resumed.load_state_dict(saved)
            return found
        resumed.load_state_dict(saved)
        return Loop(resumed, shapes=shapes)

    if kind in PER_TENSOR and others != "another order":
        with pytest.warns(
            GradGuardWarning, match="goes on from a state of other parameters: .* begin anew, .* left out"
        ):
            other = load()
    else:
        other = load()
    if kind == "AdaGC":
        before, after = (
            dict(zip(c["names"], c["numbers"]["gamma"], strict=True)) for c in (saved, resumed.state_dict())
        )
        assert set(after) == set(shapes)
        assert all(after[name] == before[name] for name in after if name in before)
        assert all(after[name] == 0 for name in after if name not in before)
    elif kind not in PER_TENSOR:
        assert {k: v for k, v in other.state.items() if "names" not in k} == {
            k: v for k, v in loop.state.items() if "names" not in k
        }
    for _ in range(3):
        other.step([torch.randn(shape) for shape in shapes.values()])
    assert all(grad.isfinite().all() for grad in other.grads)


@EACH
def test_parameters_that_come_while_it_runs_keep_what_is_known_of_the_others(kind: str) -> None:
    """A guard attaches anew when layers are unfrozen: nothing to warn of."""
    loop = Loop(CLIPPERS[kind]())
    go_on(loop, 0, 12)
    saved = loop.clipper.state_dict()
    wider = Loop(loop.clipper, shapes=OTHERS["one more"])
    if kind == "AdaGC":
        assert torch.equal(loop.clipper.state_dict()["numbers"]["gamma"][:3], saved["numbers"]["gamma"])
    elif kind == "PerModule":
        first, before = (state["parts"]["first"]["numbers"] for state in (loop.clipper.state_dict(), saved))
        assert first == before
    wider.step([*gradients(0), torch.ones(2)])
    assert all(grad.isfinite().all() for grad in wider.grads)


@EACH
def test_the_state_of_another_kind_is_left_with_a_warning(kind: str) -> None:
    other = Loop(AutoClip() if kind != "AutoClip" else ZClip()).warm(12).clipper.state_dict()
    loop = Loop(CLIPPERS[kind]())
    with pytest.warns(GradGuardWarning, match=f"begins anew: the saved state is that of {other['kind']}"):
        loop.clipper.load_state_dict(other)
    assert go_on(loop, 0) == go_on(Loop(CLIPPERS[kind]()), 0)


SETTINGS: list[tuple[Callable[[], AbstractRescaler], Callable[[], AbstractRescaler]]] = [
    (lambda: AutoClip(window=20), lambda: AutoClip(window=30)),
    (lambda: ZClip(baseline=Ema(warmup=3)), lambda: ZClip(baseline=MedianMad(window=20, warmup=5))),
    (lambda: ZClip(baseline=MedianMad(window=20, warmup=5)), lambda: ZClip(baseline=Ema(warmup=3))),
]


@pytest.mark.parametrize(("before", "now"), SETTINGS)
def test_a_state_that_does_not_fit_the_settings_is_left_with_a_warning(
    before: Callable[[], AbstractRescaler], now: Callable[[], AbstractRescaler]
) -> None:
    saved = Loop(before()).warm(12).clipper.state_dict()
    loop = Loop(now())
    with pytest.warns(GradGuardWarning, match="begins anew, the saved state does not fit: "):
        loop.clipper.load_state_dict(saved)
    assert go_on(loop, 0) == go_on(Loop(now()), 0)
