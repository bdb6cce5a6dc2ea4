"""What clippers add to a measurement: exact where it has to be, parts of it, other orders, nothing at all."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gradguard.functional import QuantileWindow, age, measure, new_quantile_window, quantile, update_quantile_window
from tests import reference


def parameter(grad: object, dtype: torch.dtype = torch.float32) -> nn.Parameter:
    whole = None if grad is None else torch.tensor(grad, dtype=dtype)
    param = nn.Parameter(torch.zeros(2 if whole is None else whole.shape, dtype=dtype))
    param.grad = whole
    return param


@pytest.mark.parametrize("scale", [None, 4.0])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
@pytest.mark.parametrize("value", [3e19, 1e30, 1e38])
def test_a_safe_measurement_is_right_where_a_float32_square_overflows(
    value: float, p: float, scale: float | None
) -> None:
    params = [parameter([value, 0.5 * value]), parameter(None), parameter([1.0, 2.0])]
    found = measure(params, norm_type=p, scale=None if scale is None else torch.tensor(scale), safe=True)
    rows = [[value, value / 2], [0, 0], [1, 2]]
    expected = [reference.norm(torch.tensor(row, dtype=torch.float32).numpy(), p) / (scale or 1) for row in rows]
    assert found.norms.tolist() == pytest.approx(expected, rel=1e-6)
    assert found.finite
    assert found.total.item() == pytest.approx(reference.norm(torch.tensor(expected).double().numpy(), p), rel=1e-6)
    assert found.missing == (1,)


def test_without_safe_it_is_not() -> None:
    assert not measure([parameter([3e19, 3e19])]).finite


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_safe_measurement_makes_nothing_finite_that_is_not(bad: float) -> None:
    found = measure([parameter([bad, 1.0]), parameter([3e19, 4e19])], safe=True)
    assert not found.finite
    assert found.norms.isfinite().tolist() == [False, True]
    assert found.norms[1].item() == pytest.approx(5e19, rel=1e-6)
    assert found.first_non_finite() == "0"


def test_a_safe_measurement_of_ordinary_gradients_is_the_plain_one() -> None:
    torch.manual_seed(0)
    params = [parameter(torch.randn(40, 7).tolist()), parameter(torch.randn(3).tolist())]
    plain, safe = measure(params), measure(params, safe=True)
    assert torch.equal(plain.norms, safe.norms)
    assert plain.norms.dtype == safe.norms.dtype == torch.float32


@pytest.mark.parametrize("missing", [(), (0,), (0, 1)])
@pytest.mark.parametrize("safe", [False, True])
def test_a_safe_measurement_on_a_device_reads_nothing_and_is_float64(missing: tuple[int, ...], safe: bool) -> None:
    params = [nn.Parameter(torch.empty(2, 3, device="meta")) for _ in range(2)]
    for i, param in enumerate(params):
        param.grad = None if i in missing else torch.empty(2, 3, device="meta")
    found = measure(params, safe=safe)
    assert found.norms.device.type == "meta"
    assert found.missing == missing
    assert found.norms.dtype == (torch.float64 if safe and len(missing) < 2 else torch.float32)
    assert found.empty == (len(missing) == 2)


def test_a_measurement_is_empty_where_no_parameter_has_a_gradient() -> None:
    assert measure([parameter(None), parameter(None)]).empty
    assert not measure([parameter(None), parameter([0.0, 0.0])]).empty
    assert measure([]).empty
    assert measure([], safe=True).total == 0


def test_a_part_has_its_own_numbers() -> None:
    params = [parameter([3.0, 0.0]), parameter(None), parameter([0.0, 4.0]), parameter(None), parameter([12.0])]
    whole = measure(params, names=list("abcde"), scale=torch.tensor(2.0))
    assert whole.total == 6.5
    part = whole.part((3, 2, 0), torch.tensor([3, 2, 0]))
    assert part.names == ("d", "c", "a")
    assert [id(p) for p in part.params] == [id(params[i]) for i in (3, 2, 0)]
    assert part.norms.tolist() == [0, 2, 1.5]
    assert part.missing == (0,)
    assert (part.total, part.scale, part.norm_type) == (2.5, whole.scale, 2.0)
    assert not part.empty
    assert whole.part((1, 3), torch.tensor([1, 3])).empty
    assert whole.part((), torch.tensor([], dtype=torch.int64)).total == 0
    assert (whole.total, whole.names) == (6.5, tuple("abcde"))


def test_a_part_is_finite_by_itself() -> None:
    whole = measure([parameter([math.nan, 1.0]), parameter([3.0, 4.0])])
    assert not whole.finite
    assert whole.part((1,), torch.tensor([1])).finite
    assert not whole.part((0,), torch.tensor([0])).finite


def test_another_order_is_measured_anew_and_the_same_is_the_same() -> None:
    params = [parameter([3.0, -4.0]), parameter(None), parameter([12.0])]
    found = measure(params, names=list("abc"), scale=torch.tensor(2.0))
    assert found.of_order(2.0) is found
    for p, norms in ((1.0, [3.5, 0, 6]), (math.inf, [2, 0, 6])):
        other = found.of_order(p)
        assert other.norms.tolist() == norms
        assert (other.names, other.missing, other.norm_type) == (("a", "b", "c"), (1,), p)
        assert other.scale is found.scale


def test_another_order_is_right_where_a_square_overflows() -> None:
    found = measure([parameter([3e19, 4e19])], norm_type=1.0)
    assert found.of_order(2.0).total.item() == pytest.approx(5e19, rel=1e-6)


def window_of(values: list[float], window: int, like: Tensor) -> QuantileWindow:
    state = new_quantile_window(like, window)
    for value in values:
        state = update_quantile_window(state, torch.full_like(like, value))
    return state


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("seen", [1, 2, 3, 4, 5, 7, 12])
def test_the_age_of_a_slot_is_how_many_observations_came_since(window: int, seen: int) -> None:
    state = window_of([float(i) for i in range(seen)], window, torch.zeros((), dtype=torch.float64))
    for value, old in zip(state.values.tolist(), age(state).tolist(), strict=True):
        if not math.isnan(value):
            assert value == seen - 1 - old
        else:
            assert old >= seen


def test_ages_are_by_parameter_where_each_has_seen_its_own() -> None:
    state = new_quantile_window(torch.zeros(2), 3)
    for x in ([1.0, 1.0], [math.nan, 2.0], [2.0, 3.0], [math.inf, 4.0]):
        state = update_quantile_window(state, torch.tensor(x))
    assert state.seen.tolist() == [2, 4]
    assert age(state).T.tolist() == [[1, 0, 2], [0, 2, 1]]
    assert state.values.T[1].tolist() == [4, 2, 3]


def test_quantiles_leave_out_what_is_masked() -> None:
    """As clippers do with what is from before a change of level."""
    state = window_of([9.0, 1.0, 2.0, 3.0, 8.0], 5, torch.zeros((), dtype=torch.float64))
    newest = state._replace(values=state.values.masked_fill(age(state) >= 3, torch.nan))
    assert [quantile(newest, q).item() for q in (0.0, 0.5, 0.75, 1.0)] == [2, 3, 5.5, 8]
