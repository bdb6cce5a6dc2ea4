"""Whether a loss falls, and whether it has been learnt, at and beside the limits."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradguard.detect.loss_course import POINTS, LossCourse


def course(losses: Tensor) -> LossCourse:
    found = LossCourse()
    found.observe(losses)
    return found


def test_nothing_is_known_at_first() -> None:
    fresh = LossCourse()
    assert math.isnan(fresh.start)
    assert math.isnan(fresh.level)
    assert fresh.falls
    assert not fresh.has_learnt


def test_a_loss_that_rests_neither_falls_nor_was_learnt() -> None:
    rests = course(torch.full((1000,), 0.17))
    assert rests.level == pytest.approx(0.17)
    assert not rests.falls
    assert not rests.has_learnt


@pytest.mark.parametrize(("last", "falls"), [(0.94, True), (0.96, False)])
def test_it_falls_where_the_last_third_is_five_per_cent_below_both_others(last: float, falls: bool) -> None:
    assert course(torch.tensor([1.0] * 60 + [last] * 30)).falls is falls
    assert course(torch.tensor([last] * 30 + [1.0] * 30 + [last] * 30)).falls is False  # it only came back


def test_a_spike_is_in_no_level() -> None:
    losses = torch.full((2500,), 0.176)
    losses[700:900] = 4.0
    assert not course(losses).falls
    assert course(losses).level == pytest.approx(0.176)


@pytest.mark.parametrize(("level", "learnt"), [(0.099, True), (0.101, False)])
def test_below_a_tenth_of_its_start_it_has_been_learnt(level: float, learnt: bool) -> None:
    assert course(torch.tensor([1.0] * 10 + [level] * 90)).has_learnt is learnt


@pytest.mark.parametrize(("level", "learnt"), [(0.49, True), (0.51, False)])
def test_below_half_of_what_it_was_after_the_first_steps_it_has_been_learnt(level: float, learnt: bool) -> None:
    assert course(torch.tensor([3.0] * 100 + [1.0] * 200 + [level] * 900)).has_learnt is learnt


@given(st.lists(st.floats(-10, 10), max_size=400), st.integers(1, 50))
def test_blocks_of_any_size_give_the_same_and_memory_is_bounded(losses: list[float], size: int) -> None:
    whole, parts = course(torch.tensor(losses, dtype=torch.float64)), LossCourse()
    for part in torch.tensor(losses, dtype=torch.float64).split(size):
        parts.observe(part)
    assert vars(parts) == vars(whole)
    assert len(whole.means) < POINTS


def test_what_is_not_finite_is_left_out() -> None:
    assert vars(course(torch.tensor([1.0, math.nan, 2.0, math.inf]))) == vars(course(torch.tensor([1.0, 2.0])))
