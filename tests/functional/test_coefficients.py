"""Clip factors against the formula in plain Python, on floats and on tensors."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.functional import band_factor, limit_factor, target_factor

TINY, MOST = sys.float_info.min, torch.finfo(torch.float32).max
ANY = st.one_of(st.floats(0, 1e300), st.floats(0, 10), st.sampled_from([0.0, 1e-310, 5e-324, 1e30, math.inf, math.nan]))
POSITIVE = st.one_of(st.floats(1e-30, 1e30), st.floats(0.01, 10))


def brought_into(factor: float, low: float, high: float) -> float:
    return min(max(factor, low), high)


def limited(norm: float, limit: float, eps: float) -> float:
    if not math.isfinite(norm) or norm == 0:
        return 1.0
    return brought_into(limit / (norm + eps), TINY, 1.0)


def targeted(norm: float, target: float) -> float:
    if not math.isfinite(norm) or norm == 0 or not math.isfinite(target):
        return 1.0
    return brought_into(math.inf if target / norm > MOST else target / norm, TINY, MOST)


def alike(found: object, expected: float) -> bool:
    return float(found) == pytest.approx(expected, rel=1e-15, abs=0)


@given(ANY, POSITIVE, st.sampled_from([0.0, 1e-6, 0.5]))
def test_a_limit(norm: float, limit: float, eps: float) -> None:
    expected = limited(norm, limit, eps)
    assert alike(limit_factor(norm, limit, eps=eps), expected)
    wide = torch.tensor(norm, dtype=torch.float64)
    for other in (limit, torch.tensor(limit, dtype=torch.float64)):
        assert alike(limit_factor(wide, other, eps=eps), expected)
    assert 0 < expected <= 1
    narrow = limit_factor(wide.float(), limit, eps=eps)
    assert 0 < narrow <= 1
    assert narrow.dtype == torch.float32


@given(ANY, POSITIVE, st.floats(1, 100))
def test_a_band(norm: float, low: float, width: float) -> None:
    high = low * width
    inside = brought_into(norm, low, high) if not math.isnan(norm) else norm
    for least in (low, 0.0):
        expected = targeted(norm, inside if least else min(norm, high))
        assert alike(band_factor(norm, least, high), expected)
        assert alike(band_factor(torch.tensor(norm, dtype=torch.float64), least, high), expected)
        assert 0 < expected < math.inf


@given(ANY, ANY)
def test_a_target(norm: float, target: float) -> None:
    expected = targeted(norm, target)
    assert alike(target_factor(norm, target), expected)
    pair = torch.tensor([norm, target], dtype=torch.float64)
    assert alike(target_factor(pair[0], pair[1]), expected)
    assert 0 < expected < math.inf


@given(st.floats(1e-15, 1e15), st.floats(1e-15, 1e15))
def test_what_is_multiplied_has_the_norm_that_was_meant(norm: float, limit: float) -> None:
    assert norm * limit_factor(norm, limit) == pytest.approx(min(norm, limit), rel=1e-14, abs=0)
    assert norm * target_factor(norm, limit) == pytest.approx(limit, rel=1e-14, abs=0)
    band = brought_into(norm, limit, 2 * limit)
    assert norm * band_factor(norm, limit, 2 * limit) == pytest.approx(band, rel=1e-14, abs=0)


def test_each_entry_of_a_tensor_is_a_norm_of_its_own() -> None:
    norms = torch.tensor([4.0, 0.5, 0.0, math.inf, math.nan])
    assert limit_factor(norms, 1.0).tolist() == [0.25, 1, 1, 1, 1]
    assert limit_factor(norms, torch.tensor([2.0, 0.25, 1.0, 1.0, 1.0])).tolist() == [0.5, 0.5, 1, 1, 1]
    assert band_factor(norms, 1.0, 2.0).tolist() == [0.5, 2, 1, 1, 1]
    assert target_factor(norms, 2.0).tolist() == [0.5, 4, 1, 1, 1]
    assert norms.isnan()[-1]


def test_no_factor_is_zero_or_larger_than_a_float32_can_be() -> None:
    for norm in (1e-300, 1e300):
        for target in (1e-300, 1.0, 1e300):
            for factor in (limit_factor(norm, target), target_factor(norm, target)):
                assert factor > 0
                assert torch.tensor(factor, dtype=torch.float32) < math.inf
    assert limit_factor(1.0, 0.0) == TINY
    assert limit_factor(torch.tensor(1.0), 0.0) == torch.finfo(torch.float32).tiny
    assert target_factor(1e-300, 1.0) == MOST


def test_nothing_that_is_limited_at_infinity_is_changed() -> None:
    assert limit_factor(3.0, math.inf) == limit_factor(torch.tensor(3.0), math.inf) == 1
    assert band_factor(3.0, 0.0, math.inf) == 1
