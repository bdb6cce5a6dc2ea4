"""Each published rule, in its published setting, against the papers' equations: gradients out, over whole runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gradguard.clip import (
    AdaGC,
    AutoClip,
    Ema,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    Reciprocal,
    ToMean,
    ToThreshold,
    ValueClip,
    ZClip,
)
from tests.clip import oracle
from tests.clip.steps import Run, Totals, spiky

STEPS = 250
PAPER: dict[str, Any] = {"sigma_floor": 0, "reanchor": None}


def zclip(**changes: Any) -> ZClip:
    return ZClip(**{**PAPER, **changes})


# Ours in the published setting, and the published rule.
RULES: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
    "norm": (lambda: NormClip(0.5), lambda: oracle.NormClip(0.5)),
    "norm, p = 1": (lambda: NormClip(2.0, norm_type=1), lambda: oracle.NormClip(2.0, p=1)),
    "norm, p = 3": (lambda: NormClip(0.5, norm_type=3), lambda: oracle.NormClip(0.5, p=3)),
    "norm, largest entry": (lambda: NormClip(0.4, norm_type="inf"), lambda: oracle.NormClip(0.4, p=math.inf)),
    "norm, eps": (lambda: NormClip(0.5, eps=0.1), lambda: oracle.NormClip(0.5, eps=0.1)),
    "value": (lambda: ValueClip(-0.1, 0.3), lambda: oracle.ValueClip(-0.1, 0.3)),
    "band": (lambda: NormBand(0.9, 1.2), lambda: oracle.NormBand(0.9, 1.2)),
    **{
        f"autoclip, p = {p}": (
            lambda p=p: AutoClip(p, window=STEPS, zeros=True, reanchor=None),
            lambda p=p: oracle.AutoClip(p),
        )
        for p in (0.0, 10.0, 37.5, 90.0, 100.0)
    },
    "zclip": (zclip, oracle.ZClip),
    "zclip, max_norm": (lambda: zclip(max_norm=1.0), lambda: oracle.ZClip(max_norm=1.0)),
    "zclip, to the mean": (lambda: zclip(target=ToMean()), lambda: oracle.ZClip(target="mean")),
    "zclip, to the threshold": (lambda: zclip(target=ToThreshold()), lambda: oracle.ZClip(target="threshold")),
    "zclip, clip_factor": (
        lambda: zclip(clip_factor=0.7, max_norm=2.0),
        lambda: oracle.ZClip(clip_factor=0.7, max_norm=2.0),
    ),
    "zclip, spikes not learnt": (
        lambda: zclip(learn_from_spikes=False),
        lambda: oracle.ZClip(skip_update_on_spike=True),
    ),
    "zclip, other numbers": (
        lambda: zclip(z_threshold=1.5, baseline=Ema(0.9, warmup=7), target=Reciprocal()),
        lambda: oracle.ZClip(z_threshold=1.5, alpha=0.9, warmup=7),
    ),
    "median and mad": (
        lambda: zclip(z_threshold=3.0, baseline=MedianMad(window=30, warmup=10)),
        lambda: oracle.MedianMad(z_threshold=3.0, window=30, warmup=10),
    ),
    "adagc": (lambda: AdaGC(floor=0, reanchor=None), oracle.AdaGC),
    "adagc, other numbers": (
        lambda: AdaGC(relative=1.5, absolute=0.6, beta=0.9, warmup=20, floor=0, reanchor=None),
        lambda: oracle.AdaGC(relative=1.5, absolute=0.6, beta=0.9, warmup=20),
    ),
    "stabilizer": (
        lambda: GradientStabilizer(bias_correction=False, reanchor=None),
        oracle.GradientStabilizer,
    ),
    "stabilizer, other numbers": (
        lambda: GradientStabilizer(gamma1=0.9, gamma2=0.99, bias_correction=False, reanchor=None),
        lambda: oracle.GradientStabilizer(gamma1=0.9, gamma2=0.99),
    ),
}


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
@pytest.mark.parametrize("rule", RULES)
def test_gradients_of_a_run_with_spikes_equal_the_published_rule(rule: str, seed: int) -> None:
    ours, published = (make() for make in RULES[rule])
    run, changed = Run(ours), 0
    for step, grads in enumerate(spiky(STEPS, seed)):
        expected = published.step([g.copy() for g in grads])
        run.step(grads)
        for found, right in zip(run.grads, expected, strict=True):
            np.testing.assert_allclose(found.numpy(), right, rtol=1e-12, atol=0, err_msg=f"step {step}")
        changed += any(not np.array_equal(before, after) for before, after in zip(grads, expected, strict=True))
    assert changed >= 3, "hardly anything was clipped, so that nothing was tested"


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_a_norm_clip_equals_torchs_own(p: float) -> None:
    torch.manual_seed(3)
    for scale in (0.01, 1.0, 100.0):
        ours, theirs = ([nn.Parameter(torch.zeros(shape)) for shape in ((40, 9), (7,), ())] for _ in range(2))
        for a, b in zip(ours, theirs, strict=True):
            a.grad = scale * torch.randn_like(a)
            b.grad = a.grad.clone()
        NormClip(1.5, norm_type=p).clip_(ours)
        nn.utils.clip_grad_norm_(theirs, 1.5, norm_type=p)
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("dtype", "entries", "value"),
    [
        (torch.float16, 1000, 60_000.0),
        (torch.float16, 1_000_000, 60_000.0),
        (torch.bfloat16, 1000, 3e38),
        (torch.float32, 4, 3e19),
        (torch.float32, 4, 3e38),
        (torch.float64, 4, 1e300),
    ],
)
def test_a_norm_clip_holds_its_limit_for_every_finite_gradient(dtype: torch.dtype, entries: int, value: float) -> None:
    weight = nn.Parameter(torch.zeros(entries, dtype=dtype))
    weight.grad = torch.full_like(weight, value)
    NormClip(1.0).clip_([weight])
    assert weight.grad.double().norm().item() == pytest.approx(1.0, rel=2e-2)


@pytest.mark.parametrize(("p", "norm"), [(1.0, 7.0), (2.0, 5.0), (math.inf, 4.0)])
def test_a_norm_clip_tells_the_norm_that_it_clips(p: float, norm: float) -> None:
    weight = nn.Parameter(torch.zeros(2))
    weight.grad = torch.tensor([3.0, 4.0])
    result = NormClip(0.5, norm_type=p, eps=0).clip_([weight])
    assert (result.norm, result.coefficient) == (norm, pytest.approx(0.5 / norm))


@given(st.floats(1e-6, 1e6), st.sampled_from([0.0, 10.0, 50.0]), st.integers(0, 100))
def test_autoclip_does_not_depend_on_the_scale_of_the_loss(scale: float, percentile: float, seed: int) -> None:
    one, other = (Run(AutoClip(percentile, eps=0)) for _ in range(2))
    for grads in spiky(12, seed):
        one.step(grads)
        other.step([scale * g for g in grads])
        for a, b in zip(one.grads, other.grads, strict=True):
            torch.testing.assert_close(scale * a, b, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("target", "norm"), [(Reciprocal(), 1.5), (ToThreshold(), 2.0), (ToMean(), 1.0)])
def test_zclip_brings_a_spike_of_z_4_where_the_paper_says(target: Any, norm: float) -> None:
    clipper = Totals(zclip(z_threshold=2.0, eps=0, target=target, baseline=Ema(warmup=2)))
    assert [clipper.step(0.5), clipper.step(1.5)] == [0.5, 1.5]  # mean 1, sigma 0.5
    assert clipper.step(3.0) == pytest.approx(norm, rel=1e-14)


def test_a_norm_at_the_threshold_is_no_spike() -> None:
    clipper = Totals(zclip(z_threshold=2.0, eps=0, baseline=Ema(warmup=2), target=ToMean()))
    for norm in (0.5, 1.5, 2.0):
        assert clipper.step(norm) == norm
    limited = Totals(zclip(max_norm=1.0))
    assert [limited.step(1.0) for _ in range(40)] == [1.0] * 40
    assert limited.step(1.0 + 1e-5) == pytest.approx(1.0, rel=2e-6)


def test_adagc_clips_and_learns_as_the_paper_computes() -> None:
    run = Run(AdaGC(warmup=1, floor=0, reanchor=None), {"weight": nn.Parameter(torch.zeros(1, dtype=torch.float64))})
    run.step([[1.0]])
    factors = run.step([[10.0]])
    assert factors.of(0).item() == pytest.approx(0.105, rel=1e-14)
    assert run.state.gamma.item() == pytest.approx(1.001, rel=1e-14)


def test_the_stabilizer_gives_a_steady_norm_length_one() -> None:
    for paper in (True, False):
        clipper = Totals(GradientStabilizer(bias_correction=not paper))
        lengths = [clipper.step(37.0) for _ in range(10_000 if paper else 50)]
        assert lengths[-1] == pytest.approx(1.0, rel=1e-4 if paper else 1e-12)


def test_a_complex_gradient_keeps_its_phase_and_a_parameter_given_twice_counts_once() -> None:
    z = nn.Parameter(torch.zeros(2, dtype=torch.complex128))
    z.grad = torch.tensor([3 + 4j, 0], dtype=torch.complex128)
    assert NormClip(1.0, eps=0).clip_([z]).norm == 5
    torch.testing.assert_close(z.grad, torch.tensor([0.6 + 0.8j, 0], dtype=torch.complex128), rtol=1e-14, atol=0)
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    weight.grad = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert NormClip(1.0, eps=0).clip_([weight, weight]).norm == 5
    torch.testing.assert_close(weight.grad, torch.tensor([0.6, 0.8], dtype=torch.float64), rtol=1e-14, atol=0)
