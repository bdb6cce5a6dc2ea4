"""How sizes fade or grow with the lag: closed forms, and what holds for any sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradguard.functional import Decay, decay

NAN, INF = math.nan, math.inf


def sizes(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def near(found: Decay, right: Decay, rel: float = 1e-12) -> None:
    assert list(found) == pytest.approx(list(right), rel=rel, abs=1e-12, nan_ok=True)


@given(rate=st.floats(-3.0, -0.05), start=st.floats(1e-6, 1e6))
def test_an_exponential_fades_at_its_rate_and_is_over_at_ln_100_of_its_time(rate: float, start: float) -> None:
    found = decay(start * torch.exp(rate * torch.arange(100, dtype=torch.float64)))
    near(found, Decay(rate, 1.0, math.log(0.01) / rate, 1.0), rel=1e-9)


@given(rate=st.floats(0.05, 3.0))
def test_an_exponential_that_grows_ends_nowhere(rate: float) -> None:
    near(
        decay(torch.exp(rate * torch.arange(20, dtype=torch.float64))), Decay(rate, 1.0, INF, math.exp(19 * rate)), 1e-9
    )


@given(value=st.floats(1e-12, 1e12), lags=st.integers(2, 60), weighs=st.booleans())
def test_a_constant_stays_for_ever(value: float, lags: int, weighs: bool) -> None:
    weights = torch.arange(lags, 0, -1) if weighs else None
    near(decay(torch.full((lags,), value, dtype=torch.float64), weights), Decay(0.0, 1.0, INF, 1.0))


def test_a_peak_and_what_comes_after_it() -> None:
    """From 2 by way of 8 down: 1 % of the largest size is 0.08, half way between 0.8 and 0.008 in the logarithm."""
    rate, fit, horizon, growth = decay(sizes(2.0, 8.0, 0.8, 0.008, 0.8))
    assert horizon == pytest.approx(2.5, rel=1e-12)
    assert growth == 4.0
    y = np.log([2.0, 8.0, 0.8, 0.008, 0.8])
    line = np.polyfit(range(5), y, 1)
    assert rate == pytest.approx(line[0], rel=1e-12)
    assert fit == pytest.approx(1 - ((y - np.polyval(line, range(5))) ** 2).sum() / ((y - y.mean()) ** 2).sum())


def test_lags_weigh_as_much_as_there_are_sequences() -> None:
    y, weights = np.log([1.0, 0.5, 0.4, 0.01]), np.array([4.0, 4.0, 2.0, 1.0])
    line = np.polyfit(range(4), y, 1, w=np.sqrt(weights))
    mean = (weights * y).sum() / weights.sum()
    rest = (weights * (y - np.polyval(line, range(4))) ** 2).sum()
    rate, fit, _, _ = decay(torch.from_numpy(np.exp(y)), torch.from_numpy(weights))
    assert rate == pytest.approx(line[0], rel=1e-12)
    assert fit == pytest.approx(1 - rest / (weights * (y - mean) ** 2).sum(), rel=1e-12)
    assert decay(sizes(1.0, 0.5, 7.0), sizes(3.0, 1.0, 0.0)).rate == pytest.approx(math.log(0.5))


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ((), Decay(NAN, NAN, NAN, NAN)),
        ((0.0, 0.0), Decay(NAN, NAN, NAN, NAN)),
        ((NAN, 1.0), Decay(NAN, NAN, NAN, NAN)),
        ((INF, 1.0), Decay(NAN, NAN, NAN, NAN)),
        ((3.0,), Decay(NAN, NAN, INF, 1.0)),
        ((1.0, 0.0, 0.0), Decay(NAN, NAN, 1.0, 1.0)),
        ((1.0, 0.5, 0.0, 0.25), Decay(None, None, 2.0, 1.0)),
        ((0.0, 1.0, 4.0), Decay(math.log(4.0), 1.0, INF, 4.0)),
        ((1.0, 4.0, INF, 1.0), Decay(math.log(4.0), 1.0, INF, INF)),
        ((1.0, 0.25, NAN), Decay(math.log(0.25), 1.0, INF, INF)),
        ((1.0, 1e-31, 1e-35), Decay(NAN, NAN, None, 1.0)),
        ((1e-300, 1e-301), Decay(-math.log(10.0), 1.0, INF, 1.0)),
        ((1e300, 1e295), Decay(-5 * math.log(10.0), 1.0, 0.4, 1.0)),
    ],
    ids=str,
)
def test_edges(given: tuple[float, ...], right: Decay) -> None:
    found = decay(sizes(*given))
    for name, value in right._asdict().items():
        if value is not None:
            assert getattr(found, name) == pytest.approx(value, rel=1e-12, nan_ok=True), name


def test_sizes_are_left_as_they_are_in_any_dtype() -> None:
    given, weights = torch.tensor([1.0, 0.5, 0.25]), torch.tensor([3, 2, 1])
    before = given.clone(), weights.clone()
    near(decay(given, weights), decay(given.double(), weights.double()))
    assert torch.equal(given, before[0])
    assert torch.equal(weights, before[1])


ANY = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1e12)), min_size=1, max_size=30)


@given(values=ANY, factor=st.floats(1e-6, 1e6))
def test_a_scale_changes_nothing(values: list[float], factor: float) -> None:
    """As that of a loss scaler; but where a size is 1 % of the largest to the last digit."""
    found, scaled = decay(sizes(*values)), decay(factor * sizes(*values))
    if not any(abs(v / max(values) - 0.01) < 1e-9 for v in values if max(values) > 0):
        near(scaled, found, rel=1e-6)


@given(values=ANY)
def test_what_holds_for_any_sizes(values: list[float]) -> None:
    rate, fit, horizon, growth = decay(sizes(*values))
    if not any(values):
        assert all(map(math.isnan, (rate, fit, horizon, growth)))
        return
    assert growth >= 1.0
    assert math.isnan(fit) == math.isnan(rate)
    assert math.isnan(fit) or 0.0 <= fit <= 1.0
    peak = int(np.argmax(values))
    after = [lag for lag in range(peak, len(values)) if values[lag] < 0.01 * max(values)]
    assert horizon == INF if not after else after[0] - 1 <= horizon <= after[0]


@given(values=ANY, lags=st.integers(0, 5))
def test_zeros_at_the_end_are_no_memory(values: list[float], lags: int) -> None:
    if any(values) and lags:
        found = decay(sizes(*values, *lags * [0.0]))
        assert found[:2] == pytest.approx(decay(sizes(*values))[:2], rel=1e-12, nan_ok=True)
        assert found.horizon <= len(values)
