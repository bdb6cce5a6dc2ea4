"""Where the default settings leave the published rules, and what the published ones do there."""

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
    AbstractRescaler,
    AdaGC,
    AutoClip,
    GradientStabilizer,
    MedianMad,
    PerModule,
    ToMean,
    ZClip,
)
from tests.clip import oracle
from tests.clip.steps import Run, Totals, totals

# Each adaptive clipper in its default settings, by what `reanchor` is.
ADAPTIVE: dict[str, Callable[..., AbstractRescaler]] = {
    "zclip": ZClip,
    "zclip to the mean": lambda **settings: ZClip(target=ToMean(), **settings),
    "median and mad": lambda **settings: ZClip(baseline=MedianMad(), **settings),
    "autoclip": AutoClip,
    "adagc": AdaGC,
    "stabilizer": GradientStabilizer,
    "of modules": lambda **settings: PerModule({"*": ZClip(**settings)}),
}


def test_norms_that_hardly_vary_are_not_clipped_for_varying_a_little_more() -> None:
    ours, paper = Totals(ZClip()), Totals(ZClip(sigma_floor=0))
    for clipper in (ours, paper):
        assert [clipper.step(1.0) for _ in range(60)] == [1.0] * 60
    assert ours.step(1.0001) == 1.0001
    assert paper.step(1.0001) == pytest.approx(0.999999, abs=1e-6)
    assert ours.step(1.5) < 1.03


@pytest.mark.parametrize("floor", [0.01, 0.2])
def test_the_floor_of_sigma_is_that_share_of_the_mean(floor: float) -> None:
    for over, changed in ((0.99, False), (1.01, True)):
        clipper = Totals(ZClip(sigma_floor=floor, z_threshold=2.0, eps=0))
        for _ in range(60):
            clipper.step(4.0)
        norm = 4.0 * (1 + 2.0 * floor * over)
        assert (clipper.step(norm) != norm) == changed


HISTORIES = [400, pytest.param(1200, marks=pytest.mark.slow)]


def mean_after(clipper: Totals, kind: str, level: float, *, history: int) -> float:
    """Mean norm at steps 200 to 300 after a change of level from 1, over what it would be if all were well."""
    noise = totals(history + 300, seed=3, spread=0.1)
    for x in noise[:history]:
        clipper.step(x)
    assert clipper.changes == 0
    for x in level * noise[history:-100]:
        clipper.step(x)
    after = [clipper.step(level * x) for x in noise[-100:]]
    return sum(after) / len(after) / (1.0 if kind == "stabilizer" else level)


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("level", [10.0, 100.0])
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_lasting_rise_is_followed_within_200_steps_and_counted(kind: str, level: float, history: int) -> None:
    clipper = Totals(ADAPTIVE[kind]())
    assert 0.7 < mean_after(clipper, kind, level, history=history) < 1.3
    assert clipper.changes == 1


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_from_the_change_on_the_new_level_is_the_usual_one(kind: str) -> None:
    clipper, noise = Totals(ADAPTIVE[kind]()), totals(1500, seed=3, spread=0.1)
    for x in noise[:1000]:
        clipper.step(x)
    taken = 0
    for x in 10 * noise[1000:1200]:
        clipper.step(x)
        taken += 1
        if clipper.changes:
            break
    assert 35 <= taken <= 60
    after = [(x, clipper.step(x)) for x in 10 * noise[1200:1230]]
    assert 0.7 < sum(clipped for _, clipped in after) / len(after) / (1.0 if kind == "stabilizer" else 10.0) < 1.3
    if kind not in ("autoclip", "stabilizer"):  # which change most gradients by intent
        assert sum(clipped < x * (1 - 1e-9) for x, clipped in after) <= (10 if kind == "adagc" else 2)


@pytest.mark.parametrize("kind", sorted(set(ADAPTIVE) - {"median and mad"}))
def test_without_reanchoring_it_is_not(kind: str) -> None:
    clipper = Totals(ADAPTIVE[kind](reanchor=None))
    assert not 0.7 < mean_after(clipper, kind, 10.0, history=800) < 1.3
    assert clipper.changes == 0


@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("level", [0.1, 0.01])
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_lasting_fall_is_followed_within_200_steps(kind: str, level: float, history: int) -> None:
    clipper = Totals(ADAPTIVE[kind]())
    assert 0.7 < mean_after(clipper, kind, level, history=history) < 1.3
    assert clipper.step(50 * level) < 20 * (1 if kind == "stabilizer" else level)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 5))])
@pytest.mark.parametrize("kind", ADAPTIVE)
def test_a_steady_noisy_run_is_never_taken_for_a_change(kind: str, seed: int) -> None:
    clipper = Totals(ADAPTIVE[kind]())
    for x in totals(2000, seed):
        clipper.step(x)
    assert clipper.changes == 0


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_spikes_now_and_then_are_not_taken_for_a_change(kind: str) -> None:
    clipper = Totals(ADAPTIVE[kind]())
    for step, x in enumerate(totals(600, seed=1, spread=0.1)):
        clipper.step(x * 50 if step % 4 == 3 else x)
    assert clipper.changes == 0


def test_autoclip_learns_on_after_norms_of_zero_where_the_papers_rule_stops() -> None:
    ours, counting, paper = Totals(AutoClip()), Totals(AutoClip(zeros=True, reanchor=None)), oracle.AutoClip(10.0)
    for norm in [1.0] * 20 + [0.0] * 10 + [1.0] * 30:
        expected = paper.step([np.array([norm])])[0].item()
        assert counting.step(norm) == pytest.approx(expected, abs=1e-300)
        assert ours.step(norm) == pytest.approx(norm, rel=2e-6)
    assert expected == 0


def test_adagc_does_not_freeze_a_parameter_whose_first_gradients_are_zero() -> None:
    moves = {}
    for floor in (1e-6, 0.0):
        params = {name: nn.Parameter(torch.zeros(2, dtype=torch.float64)) for name in ("late", "other")}
        run = Run(AdaGC(floor=floor, reanchor=None), params)
        for step in range(400):
            run.step([[0.0, 0.0] if step < 50 else [0.3, 0.4], [0.3, 0.4]])
        moves[floor] = run.grads[0].norm().item()
    assert moves[1e-6] == pytest.approx(0.5, rel=1e-6)
    assert moves[0.0] < 1e-30, "with floor=0 zeros count, as in the paper"


def test_adagc_clips_no_parameter_below_its_floor() -> None:
    clipper = Totals(AdaGC(warmup=3, floor=0.5, reanchor=None))
    assert [clipper.step(0.1) for _ in range(4)] == [0.1] * 4
    assert clipper.step(0.4) == 0.4
    assert clipper.step(5.0) == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_adagc_counts_no_gradient_that_is_missing(floor: float) -> None:
    run = Run(AdaGC(floor=floor, warmup=3), {name: nn.Parameter(torch.zeros(1)) for name in ("early", "late")})
    for _ in range(10):
        run.step([[0.5], None])
    run.step([[0.5], [0.25]])
    assert run.state.seen.tolist() == [11, 1]
    assert run.state.gamma.tolist() == pytest.approx([0.5, 0.25])


def test_adagc_warms_up_each_parameter_from_its_own_first_gradient() -> None:
    run = Run(AdaGC(warmup=5), {name: nn.Parameter(torch.zeros(1)) for name in ("early", "late")})
    for _ in range(10):
        run.step([[0.5], None])
    assert run.state.seen.tolist() == [10, 0]
    factors = run.step([[0.5], [3.0]])  # still in the warm-up of its own: the total is clipped, at 1
    assert factors.of(1).item() == pytest.approx(1 / 9.25**0.5, rel=1e-6)
    assert factors.of(0).item() == 1
    for _ in range(4):
        run.step([[0.5], [0.1]])
    assert run.step([[0.5], [3.0]]).of(1).item() == pytest.approx(0.105 / 3, rel=1e-6)


@pytest.mark.parametrize("kind", ADAPTIVE)
@pytest.mark.parametrize("settings", [{}, {"reanchor": None}])
def test_gradients_of_zero_stay_zero_and_leave_an_ordinary_state(kind: str, settings: dict[str, Any]) -> None:
    clipper = Totals(ADAPTIVE[kind](**settings))
    for _ in range(150):
        assert clipper.step(0.0) == 0.0
    for x in totals(100, seed=2):
        assert 0 < clipper.step(x) < 16


LENGTHS = st.lists(st.one_of(st.floats(1e-6, 1e6), st.sampled_from([1e-6, 1.0, 1e6])), min_size=1, max_size=30)


@given(LENGTHS, st.sampled_from([(0.6, 0.999), (0.9, 0.99), (0.0, 0.5)]), st.booleans())
def test_no_spike_drives_the_stabilizer_beyond_its_bound(
    norms: list[float], gammas: tuple[float, float], corrected: bool
) -> None:
    gamma1, gamma2 = gammas
    clipper = Totals(GradientStabilizer(gamma1=gamma1, gamma2=gamma2, bias_correction=corrected, reanchor=None))
    bound = oracle.GradientStabilizer(gamma1=gamma1, gamma2=gamma2).bound()
    for seen, norm in enumerate(norms, start=1):
        most = bound * (1 - gamma2**seen) ** 0.5 / (1 - gamma1**seen) if corrected else bound
        assert 0 < clipper.step(norm) <= most * (1 + 1e-9)


def test_one_spike_of_a_millionfold_gets_the_stabilizers_bound_and_no_more() -> None:
    clipper = Totals(GradientStabilizer())
    for _ in range(5000):
        clipper.step(1.0)
    spike, bound = clipper.step(1e6), oracle.GradientStabilizer().bound()
    assert 0.75 * bound < spike < bound
    assert clipper.step(1.0) < spike


def test_the_stabilizer_begins_anew_from_mean_and_mean_square_as_if_there_had_been_nothing_before() -> None:
    clipper = Totals(GradientStabilizer(gamma1=0.97, reanchor=8))
    for _ in range(12):
        clipper.step(1.0)
    for step in range(8):
        assert clipper.changes == 0
        clipper.step(0.02 if step % 2 else 0.18)
    assert clipper.changes == 1
    after = [clipper.step(0.02 if step % 2 else 0.18) for step in range(6)]
    usual = 0.1 / math.sqrt((0.02**2 + 0.18**2) / 2)  # mean over root mean square of the new level
    assert 0.85 * usual < sum(after) / len(after) < 1.15 * usual
