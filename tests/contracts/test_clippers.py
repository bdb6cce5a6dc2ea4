"""What every clipper promises about one step. A public one that is not listed fails."""

from __future__ import annotations

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gradguard import GradGuardWarning, clip
from gradguard.clip import AbstractBaseline, AbstractClipper, AbstractRescaler, Binding, NormClip
from tests.clip.steps import reported
from tests.contracts.clippers import CLIPPERS, LOCAL, SHAPES, WARMUP, Loop, bits, gradients, numbers

EACH = pytest.mark.parametrize("kind", CLIPPERS)


def final(base: type) -> set[type]:
    found = [cls for _, cls in inspect.getmembers(clip, inspect.isclass)]
    return {cls for cls in found if issubclass(cls, base) and not inspect.isabstract(cls)}


def test_every_public_clipper_and_baseline_is_under_contract() -> None:
    made = [make() for make in CLIPPERS.values()]
    assert final(AbstractRescaler) == {type(clipper) for clipper in made}
    assert final(AbstractBaseline) == {type(c.baseline) for c in made if hasattr(c, "baseline")}


@st.composite
def gradient(draw: st.DrawFn, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    ordinary = torch.randn(shape, generator=generator, dtype=torch.float64)
    most = 1e300 if dtype is torch.float64 else 1e38
    kind = draw(st.sampled_from(["ordinary", "ordinary", "scaled", "zero", "missing", "bad", "huge", "mixed", "tiny"]))
    if kind == "missing":
        return None
    if kind == "zero":
        return torch.zeros(shape, dtype=dtype)
    if kind == "bad":
        ordinary.view(-1)[draw(st.integers(0, ordinary.numel() - 1))] = draw(
            st.sampled_from([math.nan, math.inf, -math.inf])
        )
    factor = {
        "scaled": 10.0 ** draw(st.integers(-8, 8)),
        "huge": draw(st.sampled_from([1e30, most / 5])),
        "tiny": 1e-40,
    }
    ordinary *= factor.get(kind, 1.0)
    if kind == "mixed":
        ordinary.view(-1)[0] *= most / 5
    return ordinary.to(dtype)


def step_of(dtype: torch.dtype) -> st.SearchStrategy[list[Tensor | None]]:
    return st.tuples(*(gradient(shape, dtype) for shape in SHAPES.values())).map(list)


RUNS = st.sampled_from([torch.float32, torch.float64]).flatmap(
    lambda dtype: st.tuples(st.just(dtype), st.lists(step_of(dtype), min_size=1, max_size=14))
)


@EACH
class TestAnyRun:
    @given(run=RUNS)
    @settings(max_examples=25)
    def test_factors_are_positive_finite_of_a_clipper_at_most_1_and_what_is_done(
        self, kind: str, run: tuple[torch.dtype, list[list[Tensor | None]]]
    ) -> None:
        dtype, steps = run
        loop = Loop(CLIPPERS[kind](), dtype=dtype)
        for grads in steps:
            loop.give(grads)
            factors = loop.clipper.decide(loop.measured())
            each = [None if grad is None else factors.of(i) for i, grad in enumerate(grads)]
            factors.apply_()
            for of, before, after in zip(each, grads, loop.grads, strict=True):
                if of is None or before is None or after is None:
                    continue
                assert torch.broadcast_shapes(of.shape, before.shape) == before.shape
                assert (of > 0).all()
                assert of.isfinite().all()
                if isinstance(loop.clipper, AbstractClipper):
                    assert (of <= 1).all()
                torch.testing.assert_close(
                    after, (before.double() * of).to(dtype), rtol=1e-5, atol=1e-44, equal_nan=True
                )
            if not factors.changed():
                assert [bits(g) for g in loop.grads] == [bits(g) for g in grads]

    @given(run=RUNS)
    @settings(max_examples=25)
    def test_its_state_stays_finite_and_the_next_ordinary_step_is_an_ordinary_one(
        self, kind: str, run: tuple[torch.dtype, list[list[Tensor | None]]]
    ) -> None:
        dtype, steps = run
        loop = Loop(CLIPPERS[kind](), dtype=dtype)
        params = [bits(p) for p in loop.params]
        for i, grads in enumerate([*steps, gradients(0, dtype=dtype)]):
            assert not reported(loop.step(grads))[:, 1].isnan().any(), "the coefficient"
            for path, value in numbers(loop):
                assert value.isfinite().all(), f"{path} after step {i}: {value}"
        for before, after in zip(gradients(0, dtype=dtype), loop.grads, strict=True):
            assert after.isfinite().all()
            assert (after / before > 0).all(), "zero, or turned around"
        assert [bits(p) for p in loop.params] == params


@EACH
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("after", [0, 2, WARMUP, 15])
def test_a_bad_step_leaves_gradients_and_state_bit_for_bit(kind: str, bad: float, after: int) -> None:
    loop = Loop(CLIPPERS[kind]()).warm(after)
    grads = gradients(99, 30.0)
    grads[0][1, 0] = bad
    before = loop.state
    loop.step(grads)
    now = loop.state
    if kind not in LOCAL:
        assert now == before
        assert [bits(g) for g in loop.grads] == [bits(g) for g in grads]
        return
    assert bits(loop.grads[0][1]) == bits(grads[0][1])  # the bad unit
    if kind != "AGC":
        assert bits(loop.grads[0]) == bits(grads[0])  # the bad tensor
    if kind == "PerModule":
        assert {k: v for k, v in now.items() if "/first/" in k} == {k: v for k, v in before.items() if "/first/" in k}
    if kind == "AdaGC":
        fresh = Loop(CLIPPERS[kind]()).warm(after)
        for name, value in fresh.clipper.state_dict()["numbers"].items():
            assert bits(value[0]) == bits(loop.clipper.state_dict()["numbers"][name][0])
    if after >= WARMUP and not kind.endswith("alone"):  # the others are clipped all the same
        assert bits(loop.grads[2]) != bits(grads[2])


@EACH
@pytest.mark.parametrize("after", [0, 2, 15])
def test_a_step_without_any_gradient_changes_nothing(kind: str, after: int) -> None:
    loop = Loop(CLIPPERS[kind]()).warm(after)
    before = loop.state
    factors = loop.step([None] * 3)
    assert loop.state == before
    assert loop.grads == [None] * 3
    report = reported(factors)[0]
    assert report[:2].tolist() == [0, 1]
    assert report[3] == 0
    assert not factors.changed()


@EACH
@pytest.mark.parametrize("after", [0, WARMUP, 15])
def test_deciding_is_pure_and_can_be_done_again(kind: str, after: int) -> None:
    loop = Loop(CLIPPERS[kind]()).warm(after)
    loop.give(gradients(99, 30.0))
    measurement, state, saved = loop.measured(), loop.clipper._state, loop.state
    settings_before, norms, params = repr(loop.clipper), bits(measurement.norms), [bits(p) for p in loop.params]
    answers = [loop.clipper.coefficients(measurement, state) for _ in range(2)]
    loop.clipper.decide_again(measurement)
    assert loop.clipper._state is state
    assert loop.state == saved
    assert repr(loop.clipper) == settings_before
    assert bits(measurement.norms) == norms
    assert [bits(g) for g in loop.grads] == [bits(g) for g in gradients(99, 30.0)]
    assert [bits(p) for p in loop.params] == params
    (one, after_one), (other, after_other) = answers
    assert [bits(one.of(i)) for i in range(3)] == [bits(other.of(i)) for i in range(3)]
    assert repr(after_one) == repr(after_other)


@EACH
@pytest.mark.parametrize("value", [3e19, 1e30])
def test_a_finite_gradient_whose_square_overflows_is_scaled_and_not_zeroed(kind: str, value: float) -> None:
    loop = Loop(CLIPPERS[kind]()).warm()
    loop.step([torch.full_like(g, value) for g in gradients(0)])
    worked_on = loop.params[:1] if kind.endswith("alone") else loop.params
    for param in worked_on:
        assert (param.grad > 0).all()
        assert param.grad.norm() < 1e3
    fresh = Loop(CLIPPERS[kind]())
    for param in fresh.params:
        param.grad = torch.full_like(param, value)
    result = fresh.clipper.clip_(list(zip(SHAPES, fresh.params, strict=True)))
    assert result.finite
    of_all = value if kind == "NormClip of the largest entry" else value * 15**0.5
    assert result.norm == pytest.approx(of_all, rel=1e-6)


@pytest.mark.filterwarnings("ignore:clip_ got no parameter to clip")
def test_a_model_that_is_frozen_as_a_whole_is_no_trouble() -> None:
    for make in CLIPPERS.values():
        clipper = make()
        if clipper.patterns:
            continue
        clipper.attach(Binding((), (), ()))
        assert clipper.clip_([]).norm == 0


def test_parameters_that_are_used_up_are_warned_of() -> None:
    params = Loop(NormClip(1.0)).warm().params
    used_up = iter(params)
    list(used_up)
    with pytest.warns(GradGuardWarning, match="clip_ got no parameter to clip"):
        NormClip(1.0).clip_(used_up)
