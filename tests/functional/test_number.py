"""The same formula gives the same number on floats and on tensors, at every odd value too."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gradguard.functional import number

ODD = [0.0, -0.0, 1.0, -1.0, 5e-324, 1e-200, 1e200, 1.7e308, math.inf, -math.inf, math.nan]
ANY = st.one_of(st.floats(), st.sampled_from(ODD))
NOT_NEGATIVE = st.one_of(st.floats(0), st.sampled_from([x for x in ODD if not x < 0 and math.copysign(1, x) > 0]))
META = torch.device("meta")


def tensor(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def same(a: Any, b: Any, *, ulps: int = 0) -> None:
    """Both are NaN, or the same number with the same sign."""
    a, b = float(a), float(b)
    if math.isnan(a) or math.isnan(b):
        assert math.isnan(a)
        assert math.isnan(b)
    else:
        assert math.copysign(1, a) == math.copysign(1, b)
        assert a == b or abs(a - b) <= ulps * math.ulp(b)


def both(of: Callable[..., Any], *values: float, ulps: int = 0) -> float:
    """Give what it gives for floats, once it has been held against what it gives for tensors."""
    on_floats, on_tensors = of(*values), of(*map(tensor, values))
    assert isinstance(on_floats, float | bool)
    assert isinstance(on_tensors, Tensor)
    same(on_tensors, on_floats, ulps=ulps)
    return on_floats


@given(ANY, ANY.filter(lambda b: b != 0 or math.copysign(1, b) > 0))  # a norm of zero has no sign
def test_division(a: float, b: float) -> None:
    both(number.divide, a, b)
    same(number.divide(tensor(a), b), number.divide(a, b), ulps=1)  # torch may multiply by the reciprocal
    same(number.divide(a, tensor(b)), number.divide(a, b), ulps=1)


def test_division_by_what_has_no_reciprocal() -> None:
    tiny = 2.225073858507203e-309
    assert number.divide(0.25, tensor(tiny)).item() == 0.25 / tiny
    assert number.divide(0.0, tensor(tiny)).item() == 0.0


def test_division_by_zero() -> None:
    assert [number.divide(x, 0.0) for x in (1.0, -1.0, math.inf)] == [math.inf, -math.inf, math.inf]
    assert math.isnan(number.divide(0.0, 0.0))
    assert math.isnan(number.divide(math.nan, 0.0))
    same(number.divide(0.0, -3.0), -0.0)
    assert number.divide(7.0, 2.0) == 3.5


@given(ANY)
def test_square_and_finite(x: float) -> None:
    both(number.square, x)
    both(number.is_finite, x)


@given(NOT_NEGATIVE)
def test_root(x: float) -> None:
    assert both(number.sqrt, x) == pytest.approx(x**0.5, nan_ok=True)


@given(ANY, st.floats(-10, 0), st.one_of(st.floats(0, 10), st.just(math.inf)))
def test_clamp(x: float, low: float, high: float) -> None:
    found = number.clamp(x, low, high)
    same(number.clamp(tensor(x), low, high), found)
    assert math.isnan(found) if math.isnan(x) else found == min(max(x, low), high)


def test_clamp_to_one_side() -> None:
    assert (number.clamp(3.0, high=2.0), number.clamp(-3.0, low=2.0), number.clamp(3.0)) == (2, 2, 3)
    assert (number.clamp(tensor(3.0), high=2.0), number.clamp(tensor(-3.0), low=2.0)) == (2, 2)


@given(st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_larger(x: float, y: float) -> None:
    assert number.larger(x, y) == number.larger(tensor(x), tensor(y)) == max(x, y)


@given(st.booleans(), ANY, ANY)
def test_where(condition: bool, a: float, b: float) -> None:
    expected = a if condition else b
    same(number.where(condition, a, b), expected)
    same(number.where(torch.tensor(condition), tensor(a), tensor(b)), expected)
    same(number.where(torch.tensor(condition), tensor(a), b), expected)
    same(number.where(torch.tensor(condition), a, tensor(b)), expected)


def test_a_cpu_tensor_becomes_a_float_and_another_one_a_precise_tensor() -> None:
    assert number.scalar(torch.tensor(0.5)) == 0.5
    assert isinstance(number.scalar(torch.tensor(0.5)), float)
    assert number.scalar(tensor(0.1)) == 0.1
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        there = number.scalar(torch.empty((), dtype=dtype, device=META))
        assert (there.device, there.dtype) == (META, torch.float64)


def test_a_number_becomes_a_tensor_as_another_one_is() -> None:
    like = torch.zeros((), dtype=torch.float32)
    assert number.tensor_like(0.1, like).dtype == torch.float32
    assert number.tensor_like(tensor(0.1), like).dtype == torch.float32
    assert number.tensor_like(0.1, torch.empty((), device=META)).device == META
    assert number.tensor_like(0.1, tensor(0.0)).item() == 0.1
    assert number.as_tensor(0.1).item() == 0.1
    assert number.as_tensor(like) is like


def test_a_number_on_the_host_stays_there_whatever_the_default_device_is() -> None:
    with META:
        assert number.as_tensor(0.1).item() == 0.1
