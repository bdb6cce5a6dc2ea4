"""A derivative along one direction: differences agree, differ, meet a kink, or are lost in rounding."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from gradguard.probe.directional import pair, read
from gradguard.probe.nested_tensors import substituted
from gradguard.probe.scalar import Scalar

EPS = 2.3e-16
Function = Callable[[float], float]


def reading(f: Function, analytic: float, *, typical: float = 0.0, sigma: float = EPS, step: float = 2e-5) -> str:
    return read(f, f(0.0), analytic, typical=typical, step=step, widest=0.1, sigma=sigma, rtol=1e-5).state


SMOOTH: dict[str, tuple[Function, float]] = {
    "line": (lambda t: 3 * t + 1, 3.0),
    "sine": (lambda t: math.sin(t + 1), math.cos(1)),
    "exp": (lambda t: math.exp(5 * t), 5.0),
    "narrow": (lambda t: math.tanh(1e4 * t + 1), 1e4 / math.cosh(1) ** 2),
    "pole": (lambda t: 1 / (t + 1e-3), -1e6),
    "tiny": (lambda t: 1 + 1e-9 * math.sin(t + 1), 1e-9 * math.cos(1)),
    "root": (lambda t: math.sqrt(t + 1e-4) if t > -1e-4 else math.nan, 50.0),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_smooth(name: str) -> None:
    f, slope = SMOOTH[name]
    assert reading(f, slope) == "agrees"
    for wrong in (1.01, 0.99, -1.0, 0.0, 2.0, 1e3):
        assert reading(f, slope * wrong) == "differs", wrong
    assert reading(f, math.nan) == "differs"
    assert reading(f, math.inf) == "differs"


@pytest.mark.parametrize("name", sorted(SMOOTH.keys() - {"tiny"}))
def test_a_derivative_that_is_small_by_chance_is_measured_by_the_others(name: str) -> None:
    f, slope = SMOOTH[name]
    assert reading(f, slope * (1 + 5e-3)) == "differs"
    assert reading(f, slope * (1 + 5e-3), typical=1000 * abs(slope)) == "agrees"


def bent(at: float, by: float = 1.0) -> Function:
    return lambda t: math.sin(t + 1) + by * max(0.0, t - at)


@pytest.mark.parametrize("by", [1.0, -0.3, 1e-2, 1e-3])
@pytest.mark.parametrize("at", [3e-5, 1.9e-5, 1.0e-5, 6.7e-6, 5e-6, 1e-6, 1e-7, -1e-7, -5e-6, -1e-5])
def test_a_kink_beside_the_point_is_passed_by_smaller_steps(at: float, by: float) -> None:
    slope = math.cos(1) + (by if at < 0 else 0.0)
    assert reading(bent(at, by), slope) == "agrees"
    assert reading(bent(at, by), slope * 1.01) == "differs"


@pytest.mark.parametrize("by", [1.0, -0.3, 1e-2])
def test_a_kink_at_the_point_is_never_called_an_error(by: float) -> None:
    for share in (0.0, 0.25, 1.0):  # what autograd may make of it
        assert reading(bent(0.0, by), math.cos(1) + share * by) == "kink"
    assert reading(lambda t: by * abs(t), 0.0) == "kink"
    assert reading(lambda t: by * abs(t) + by * t, by) == "kink"
    assert reading(lambda t: math.sqrt(abs(t)), 0.0) == "kink"


def test_steps_are_no_slope() -> None:
    assert reading(lambda t: round((t + 1) * 512) / 512, 1.0) != "differs"
    assert reading(lambda t: 1.0 + t, 0.5) == "differs"


def test_what_is_flat() -> None:
    found = read(lambda t: 7.0, 7.0, 0.0, typical=0.0, step=2e-5, widest=0.1, sigma=EPS, rtol=1e-5)
    assert (found.state, found.flat, found.doubt) == ("agrees", True, 0.0)
    assert reading(lambda t: 7.0, 1e-3) == "differs"
    assert reading(lambda t: 7.0, 1e-20) == "blind"


def test_what_is_lost_in_rounding() -> None:
    generator = torch.Generator().manual_seed(0)

    def noisy(slope: float, sigma: float) -> Function:
        return lambda t: 1.0 + slope * t + sigma * float(torch.randn((), generator=generator))

    for _ in range(200):
        assert reading(noisy(1e-10, 1e-10), 1e-10, sigma=1e-10, step=1e-3) in ("blind", "agrees")
        assert reading(noisy(1.0, 1e-10), 1.0, sigma=1e-10, step=1e-3) == "agrees"
        assert reading(noisy(1.0, 1e-10), 1.01, sigma=1e-10, step=1e-3) == "differs"


def test_where_f_is_not_finite() -> None:
    assert reading(lambda t: math.log(t + 1e-6) if t > -1e-6 else math.nan, 1e6) == "agrees"
    assert reading(lambda t: 0.0 if t == 0 else math.inf, 1.0) == "not finite"
    assert pair(lambda t: math.inf, 0.0, 1e-5, EPS) is None


def test_the_two_step_sizes_cancel_what_is_cubic() -> None:
    found = pair(lambda t: t + 100 * t**3, 0.0, 1e-2, EPS)
    assert found is not None
    assert found.numeric == pytest.approx(1.0, abs=1e-12)
    assert found.spread == pytest.approx(0.75 * 100 * 1e-4, rel=1e-9)
    assert found.jump == 0.0
    kinked = pair(abs, 0.0, 1e-2, EPS)
    assert kinked is not None
    assert kinked.jump == pytest.approx(2.0)


def test_a_run_starts_from_the_same_state_each_time() -> None:
    module = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.5)).double()
    scalar = Scalar(
        lambda: module(torch.randn(4, 3, dtype=torch.float64)).square().sum() + module[0].running_mean.sum(),
        module,
        dict(module.named_parameters()),
    )
    values = {scalar.value({}, 0.0) for _ in range(3)} | {scalar.gradients()[0]}
    assert len(values) == 1
    v = scalar.direction("0.weight", torch.Generator().manual_seed(0))
    assert v.norm().item() == pytest.approx(1.0)
    assert scalar.value({"0.weight": v}, 0.1) not in values
    with scalar.elsewhere({"0.weight": v}):
        assert scalar.value({}, 0.0) not in values
    assert scalar.value({}, 0.0) in values


def test_what_holds_no_tensor_stays_the_same_object() -> None:
    kept, t = {"a": [1, "b"]}, torch.ones(1)
    there = substituted([kept, (t, kept)], lambda place, tensor: 2 * tensor)
    assert there[0] is kept
    assert there[1][1] is kept
    assert there[1][0].item() == 2.0
    assert substituted((kept,), lambda place, tensor: tensor)[0] is kept
