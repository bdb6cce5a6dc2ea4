"""A lasting change of level against sums written out in NumPy, on floats and on tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.functional import Level, new_level, update_level
from tests import reference

STEPS = st.lists(
    st.tuples(st.one_of(st.floats(0, 1e3), st.sampled_from([math.nan, math.inf])), st.booleans()), max_size=60
)


def run(steps: list[tuple[float, bool]], patience: int) -> tuple[Level, list[bool]]:
    state, changes = new_level(0.0), []
    for x, off in steps:
        state, changed = update_level(state, x, off, patience=patience)
        changes.append(bool(changed))
    return state, changes


@given(STEPS, st.integers(2, 30))
def test_share_of_what_was_off_and_moments_equal_the_weighted_sums(
    steps: list[tuple[float, bool]], patience: int
) -> None:
    state, changes = run(steps, patience)
    finite = [(x, off) for x, off in steps if math.isfinite(x)]
    decay, expected, since = 0.2 ** (1 / patience), [], []
    for x, off in steps:
        if not math.isfinite(x):
            expected.append(False)
            continue
        since.append(off)
        ages = np.arange(len(since))[::-1]
        share = (1 - decay) * float(np.sum(decay**ages * np.array(since)))
        expected.append(share >= 0.8 - 1e-6)
        if expected[-1]:
            since = []
    assert changes == expected
    ages = np.arange(len(since))[::-1]
    assert state.off == pytest.approx((1 - decay) * float(np.sum(decay**ages * np.array(since))), abs=1e-12)
    assert state.changes == sum(changes)
    assert state.recent.seen == len(finite)
    if finite:
        mean, var = reference.weighted_moments([x for x, _ in finite], 1e-3 ** (1 / patience))
        assert state.recent.mean == pytest.approx(mean, rel=1e-9, abs=1e-9)
        assert state.recent.var == pytest.approx(var, rel=1e-7, abs=1e-6)


@given(STEPS, st.integers(2, 30))
def test_tensors_and_floats_give_the_same(steps: list[tuple[float, bool]], patience: int) -> None:
    on_floats, changes = run(steps, patience)
    state = new_level(torch.zeros(2, dtype=torch.float64))
    for (x, off), expected in zip(steps, changes, strict=True):
        both = torch.tensor([x, 1.0], dtype=torch.float64)
        state, changed = update_level(state, both, torch.tensor([off, False]), patience=patience)
        assert changed.tolist() == [expected, False]
    for found, right in zip(
        (state.off, state.changes, *state.recent), (on_floats.off, on_floats.changes, *on_floats.recent), strict=True
    ):
        assert found[0].item() == pytest.approx(right, rel=1e-12, abs=1e-9)
    assert state.changes[1] == 0


@pytest.mark.parametrize("patience", [2, 3, 10, 40, 200])
def test_it_takes_exactly_so_many_on_end_to_be_a_change(patience: int) -> None:
    _, changes = run([(1.0, True)] * (2 * patience), patience)
    assert [i + 1 for i, changed in enumerate(changes) if changed] == [patience, 2 * patience]
    _, changes = run([(1.0, True)] * (patience - 1) + [(1.0, False)], patience)
    assert not any(changes)


@pytest.mark.parametrize("patience", [20, 40])
def test_three_in_four_are_never_a_change_and_nine_in_ten_are(patience: int) -> None:
    assert not any(run([(1.0, step % 4 != 0) for step in range(2000)], patience)[1])
    assert any(run([(1.0, step % 10 != 0) for step in range(2000)], patience)[1])


def test_the_moments_are_those_of_the_newest_by_the_time_of_a_change() -> None:
    state, _ = run([(1.0, False)] * 500 + [(10.0, True)] * 40, 40)
    assert state.changes == 1
    assert state.recent.mean == pytest.approx(10.0, rel=1e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_leaves_the_state_bit_for_bit(bad: float) -> None:
    state, _ = run([(1.0, True), (3.0, False), (2.0, True)], 5)
    for off in (True, False):
        after, changed = update_level(state, bad, off, patience=5)
        assert after == state
        assert not changed
    on_tensors = new_level(torch.zeros(()))
    on_tensors, _ = update_level(on_tensors, torch.tensor(3.0), torch.tensor(True), patience=5)
    after, changed = update_level(on_tensors, torch.tensor(bad), torch.tensor(True), patience=5)
    assert [x.item() for x in (after.off, *after.recent, after.changes)] == [
        x.item() for x in (on_tensors.off, *on_tensors.recent, on_tensors.changes)
    ]
    assert not changed


def test_the_old_state_is_not_touched() -> None:
    state = new_level(torch.zeros(2))
    update_level(state, torch.ones(2), torch.tensor([True, False]), patience=3)
    assert all(x.tolist() == [0, 0] for x in (state.off, *state.recent, state.changes))
