"""Running statistics against weights written out in full; bad observations leave every bit alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.functional import (
    new_moments,
    new_quantile_window,
    quantile,
    update_moments,
    update_quantile_window,
)
from tests import reference

LIKE = torch.zeros((), dtype=torch.float64)
OBSERVATIONS = st.lists(
    st.one_of(st.floats(-1e3, 1e3), st.sampled_from([math.nan, math.inf, -math.inf])), min_size=1, max_size=40
)


@given(OBSERVATIONS, st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_moments_equal_the_weighted_sums(values: list[float], decay: float) -> None:
    state = new_moments(LIKE)
    for value in values:
        state = update_moments(state, torch.tensor(value), decay=decay)
    finite = [v for v in values if math.isfinite(v)]
    assert state.seen == len(finite)
    if finite:
        mean, var = reference.weighted_moments(torch.tensor(values, dtype=torch.float32).double().tolist(), decay)
        assert state.mean.item() == pytest.approx(mean, rel=1e-9, abs=1e-9)
        assert state.var.item() == pytest.approx(var, rel=1e-9, abs=1e-6)


@given(OBSERVATIONS, st.integers(1, 12), st.sampled_from([0.0, 0.1, 0.5, 0.75, 1.0]))
def test_quantiles_equal_those_of_the_last_finite_values(values: list[float], window: int, q: float) -> None:
    state = new_quantile_window(LIKE, window)
    for value in values:
        state = update_quantile_window(state, torch.tensor(value, dtype=torch.float64))
    expected = reference.window_quantile(values, window, q)
    assert quantile(state, q).item() == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_non_finite_observation_leaves_the_state_bit_identical(bad: float) -> None:
    moments, window = new_moments(torch.zeros(3)), new_quantile_window(torch.zeros(3), 4)
    for _ in range(6):
        x = torch.randn(3)
        moments, window = update_moments(moments, x, decay=0.9), update_quantile_window(window, x)
    poison = torch.tensor([1.0, bad, 2.0])
    after = (*update_moments(moments, poison, decay=0.9), *update_quantile_window(window, poison))
    for before, now in zip((*moments, *window), after, strict=True):
        assert torch.equal(before[..., 1], now[..., 1])
        assert not torch.equal(before[..., 0], now[..., 0])


def test_the_old_state_is_not_touched() -> None:
    moments, window = new_moments(torch.zeros(2)), new_quantile_window(torch.zeros(2), 2)
    update_moments(moments, torch.ones(2), decay=0.9)
    update_quantile_window(window, torch.ones(2))
    assert moments.seen.tolist() == [0, 0]
    assert window.values.isnan().all()


def test_an_empty_window_has_no_quantile() -> None:
    assert quantile(new_quantile_window(torch.zeros(()), 3), 0.5).isnan()


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="update_moments needs 0 < decay <= 1, got 0"):
        update_moments(new_moments(LIKE), LIKE, decay=0)
    with pytest.raises(ValueError, match="new_quantile_window needs window >= 1, got 0"):
        new_quantile_window(LIKE, 0)
    with pytest.raises(ValueError, match=r"quantile needs 0 <= q <= 1, got 1\.5"):
        quantile(new_quantile_window(LIKE, 1), 1.5)
