"""NaN and Inf, missing gradients, updates and clipping upstream, each at and beside its limit."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gradguard.detect import (
    ClippedUpstream,
    NoGradient,
    NonFinite,
    Severity,
    Symptom,
    UpdateTooLarge,
    UpdateTooSmall,
)
from tests.detect.blocks import block, cut, layout, noisy

OF = layout(3)


def test_non_finite_names_the_first_parameter_and_the_one_nearest_to_the_loss() -> None:
    norms = noisy(30, OF)
    norms[4, 0], norms[4, 1], norms[6, 2] = math.nan, math.inf, math.nan
    detector = NonFinite()
    detector.observe(block(OF, norms))
    (finding,) = detector.findings()
    assert finding.symptom is Symptom.NON_FINITE
    assert finding.severity is Severity.CRITICAL
    assert finding.where == ("layer0.weight", "layer1.weight")
    assert (finding.first_step, finding.last_step, finding.active) == (5, 7, False)
    assert finding.evidence["bad steps"] == 2
    assert finding.evidence["kind"] == "NaN"
    assert "gradient of layer0.weight is the first" in finding.explanation
    assert "layer1.weight is the bad one nearest to the loss" in finding.explanation


def test_non_finite_still_holds_until_enough_finite_steps_have_passed() -> None:
    norms = noisy(10, OF)
    norms[3] = math.inf
    detector = NonFinite(patience=7)
    detector.observe(block(OF, norms))
    assert detector.findings()[0].active
    detector.observe(block(OF, noisy(1, OF), first_step=11))
    assert not detector.findings()[0].active


def test_an_overflow_that_the_scaler_skips_is_routine() -> None:
    norms = noisy(30, OF)
    norms[4] = math.inf
    detector = NonFinite()
    detector.observe(block(OF, norms, overflow=[5]))
    assert detector.findings() == ()


def test_a_parameter_that_never_gets_a_gradient_is_named() -> None:
    norms, missing = noisy(25, OF), torch.zeros(25, 3, dtype=torch.bool)
    norms[:, 1], norms[:, 2], missing[:, 2] = 0, 0, True
    detector = NoGradient()
    detector.observe(block(OF, norms, missing=missing))
    (finding,) = detector.findings()
    assert finding.where == ("layer1.weight", "layer2.weight")
    assert (finding.first_step, finding.last_step, finding.active) == (1, 25, True)
    assert finding.severity is Severity.WARNING


@pytest.mark.parametrize("first_gradient", [1, 19, 20])
def test_a_gradient_before_patience_runs_out_says_nothing(first_gradient: int) -> None:
    norms = noisy(60, OF)
    norms[: first_gradient - 1, 1] = 0
    norms[first_gradient:, 1] = 0  # a single one is enough
    detector = NoGradient(patience=20)
    detector.observe(block(OF, norms))
    assert detector.findings() == ()


def test_a_late_gradient_ends_it() -> None:
    norms = noisy(60, OF)
    norms[:30, 1] = 0
    detector = NoGradient()
    detector.observe(block(OF, norms))
    (finding,) = detector.findings()
    assert (finding.first_step, finding.last_step, finding.active) == (1, 30, False)
    assert finding.severity is Severity.INFO


def test_a_run_without_any_gradient_is_critical() -> None:
    detector = NoGradient()
    detector.observe(block(OF, torch.zeros(50, 3)))
    (finding,) = detector.findings()
    assert finding.severity is Severity.CRITICAL
    assert "a zero_grad() between backward() and step()" in finding.explanation


def test_a_frozen_parameter_is_meant_to_have_none() -> None:
    norms = noisy(60, OF)
    norms[:, 1] = 0
    detector = NoGradient()
    detector.observe(block(OF, norms, frozen=[1]))
    assert detector.findings() == ()
    detector.observe(block(OF, norms[:19], first_step=61))
    assert detector.findings() == ()
    detector.observe(block(OF, norms[:1], first_step=80))
    assert detector.findings()[0].active
    detector.observe(block(OF, norms[:5], first_step=81, frozen=[1]))
    assert detector.findings()[0].severity is Severity.INFO


SAMPLED = [1, 2, 4, 8, 16, 32, 50, 100, 150, 200]


def with_ratios(*by_layer: float | list[float]) -> object:
    rows = {
        step: [ratio[i] if isinstance(ratio, list) else ratio for ratio in by_layer] for i, step in enumerate(SAMPLED)
    }
    return block(OF, noisy(200, OF), ratios=rows)


def test_updates_as_large_as_the_weights_are_critical_after_two_samples() -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(*[[3.0, 1.2, 1.5, *[0.01] * 7]] * 3))
    (finding,) = detector.findings()
    assert finding.severity is Severity.CRITICAL
    assert (finding.first_step, finding.last_step) == (2, 4)
    assert not finding.active
    assert finding.evidence["median update/weight"] == 1.5


def test_lasting_large_updates_are_a_warning() -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(0.2, 0.3, 0.01))
    (finding,) = detector.findings()
    assert finding.severity is Severity.WARNING
    assert finding.where == ("layer1.weight", "layer0.weight")
    assert (finding.first_step, finding.last_step, finding.active) == (16, 200, True)


@pytest.mark.parametrize(
    "ratios",
    [
        [0.05] * 10,
        [5.0, 0.9, 0.5, 0.3, 0.15, 0.15, 0.12, 0.05, 0.05, 0.05],  # Adam on small weights
        [5.0, 2.0, *[0.01] * 8],
        [math.nan] * 10,
    ],
)
def test_usual_or_brief_or_unknown_updates_say_nothing(ratios: list[float]) -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(ratios, ratios, ratios))
    assert detector.findings() == ()


def test_one_layer_among_many_does_not_make_the_median() -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(2.0, 0.001, 0.001))
    assert detector.findings() == ()


def test_a_weight_that_never_moved_is_named() -> None:
    detector = UpdateTooSmall()
    detector.observe(with_ratios(1e-9, 1e-3, 0.0))
    (finding,) = detector.findings()
    assert finding.where == ("layer0.weight", "layer2.weight")
    assert (finding.first_step, finding.last_step, finding.active) == (1, 200, True)
    assert finding.evidence["largest update/weight"] == pytest.approx(1e-9)


@pytest.mark.parametrize("rates", [0.0, 0.1])
def test_weights_that_moved_before_or_have_no_learning_rate_say_nothing(rates: float) -> None:
    detector = UpdateTooSmall()
    ratios = [1e-3 if rates else 0.0, *[1e-12] * 9]  # converged, or one group that is frozen by its rate
    rows = {step: [ratios[i], ratios[i], 1e-3] for i, step in enumerate(SAMPLED)}
    whole = block(OF, noisy(200, OF), ratios=rows, rates=rates)
    whole.samples.learning_rates[:, 2] = 0.1
    detector.observe(whole)
    assert detector.findings() == ()


@pytest.mark.parametrize(("level", "is_found"), [(2.3, True), (1.9, False)])
def test_weights_that_stop_after_a_few_steps_without_having_learnt(level: float, is_found: bool) -> None:
    losses = {step: 2.3 if step <= 10 else level for step in range(1, 201)}
    rows = {step: [1e-3 if step < 8 else 1e-12] * 3 for step in SAMPLED}
    for sizes in ([200], [7, 30]):
        detector = UpdateTooSmall()
        for part in cut(block(OF, noisy(200, OF), ratios=rows, losses=losses), sizes):
            detector.observe(part)
        assert bool(detector.findings()) is is_found


def test_a_learning_rate_of_zero_for_everything_is_a_standstill() -> None:
    detector = UpdateTooSmall()
    detector.observe(block(OF, noisy(200, OF), ratios={step: [0.0] * 3 for step in SAMPLED}, rates=0.0))
    assert len(detector.findings()[0].where) == 3


@pytest.mark.parametrize(
    ("ratios", "loss", "is_found"),
    [
        ([4e-5, 4.05e-5, 4e-5], 2.0, True),
        ([4e-5, 4.2e-5, 4e-5], 2.0, False),  # they differ: it is not the decay
        ([4e-5, 4e-5, 4e-5], 1.5, False),  # something is learnt
        ([2e-3, 2e-3, 2e-3], 2.0, False),  # an optimizer that gives each layer its share
    ],
)
def test_steps_of_weight_decay_alone_move_nothing(ratios: list[float], loss: float, is_found: bool) -> None:
    losses = {step: 2.0 if step <= 10 else loss for step in range(1, 201)}
    detector = UpdateTooSmall()
    detector.observe(block(OF, noisy(200, OF), ratios=dict.fromkeys(range(10, 200, 20), ratios), losses=losses))
    said = detector.findings()
    assert bool(said) is is_found
    assert all("weight decay aside" in one.explanation for one in said)


@pytest.mark.parametrize(
    ("ratio", "loss", "is_found"), [(1.8e-5, 2.0, True), (2.2e-5, 2.0, False), (1.8e-5, 1.5, False)]
)
def test_the_limit_is_higher_where_nothing_is_learnt(ratio: float, loss: float, is_found: bool) -> None:
    losses = {step: 2.0 if step <= 10 else loss for step in range(1, 201)}
    detector = UpdateTooSmall()
    ratios = {step: [ratio, 1.1 * ratio, 0.95 * ratio] for step in range(10, 200, 20)}
    detector.observe(block(OF, noisy(200, OF), ratios=ratios, losses=losses))
    said = detector.findings()
    assert bool(said) is is_found
    assert all("no step changed them by more than 2e-05 of their norm." in one.explanation for one in said)


def test_a_weight_that_moves_at_last_is_over() -> None:
    detector = UpdateTooSmall()
    detector.observe(with_ratios(*[[*[1e-9] * 9, 1e-3]] * 3))
    (finding,) = detector.findings()
    assert not finding.active
    assert finding.severity is Severity.INFO


def clipped(raw: torch.Tensor, at: float) -> torch.Tensor:
    total = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
    return raw * (at / (total + 1e-6)).clamp(max=1)


def test_totals_that_pile_up_at_one_value_are_a_clipping_upstream() -> None:
    detector = ClippedUpstream()
    raw = noisy(60, OF, spread=0.3)
    at = float(torch.linalg.vector_norm(raw, dim=1).median())  # half of the steps are clipped
    detector.observe(block(OF, clipped(raw, at)))
    (finding,) = detector.findings()
    assert finding.symptom is Symptom.CLIPPED_UPSTREAM
    assert finding.severity is Severity.INFO
    assert finding.evidence["clipped to"] == pytest.approx(at, rel=1e-4)
    assert f"{at:.3g}"[:3] in finding.explanation
    detector.observe(block(OF, noisy(200, OF, spread=0.3), first_step=61))
    assert not detector.findings()[0].active


@pytest.mark.parametrize(
    ("moved", "level", "free", "severity"),
    [
        (1e-4, 2.3, 0, Severity.WARNING),
        (1e-3, 2.3, 0, Severity.INFO),  # steps are large enough
        (1e-4, 1.9, 0, Severity.INFO),  # it learns
        (1e-4, 2.3, 5, Severity.INFO),  # one in five is not clipped
    ],
)
def test_a_clipping_that_throttles_is_a_warning(moved: float, level: float, free: int, severity: Severity) -> None:
    of = layout(4)
    norms = noisy(200, of)
    norms = norms / torch.linalg.vector_norm(norms, dim=1, keepdim=True)
    if free:
        norms[::free] *= 0.5
    losses = dict(enumerate([2.3] * 20 + [level] * 180, start=1))
    detector = ClippedUpstream()
    detector.observe(block(of, norms, losses=losses, moved=moved))
    (said,) = detector.findings()
    assert said.severity is severity
    assert ("hardly anything is learnt" in said.explanation) is (severity is Severity.WARNING)


def test_totals_that_stand_still_because_nothing_changes_are_no_clipping() -> None:
    detector = ClippedUpstream()
    detector.observe(block(OF, noisy(1, OF).expand(100, 3)))
    assert detector.findings() == ()
    detector.observe(block(OF, noisy(200, OF, spread=0.2), first_step=101))
    assert detector.findings() == ()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NonFinite(patience=0), "NonFinite needs patience, skips and losses >= 1, got patience=0"),
        (lambda: NoGradient(patience=0), "NoGradient needs patience >= 1, got 0"),
        (lambda: UpdateTooLarge(2.0), r"0 < ratio < breaking, .* got ratio=2\.0, breaking=1\.0"),
        (lambda: UpdateTooSmall(0.0), r"ratio > 0, .* got ratio=0\.0"),
        (lambda: ClippedUpstream(patience=60), r"1 < patience <= window .* got patience=60, window=50"),
    ],
)
def test_bad_arguments(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_an_endless_row_of_overflows_is_no_routine() -> None:
    detector = NonFinite(skips=30)
    norms = torch.full((40, 3), math.inf)
    detector.observe(block(OF, norms[:29], overflow=range(1, 30)))
    assert detector.findings() == ()
    detector.observe(block(OF, norms[:1], first_step=30, overflow=[30]))
    (finding,) = detector.findings()
    assert (finding.first_step, finding.last_step, finding.active) == (1, 30, True)
    detector.observe(block(OF, noisy(1, OF), first_step=31))
    assert not detector.findings()[0].active


@pytest.mark.parametrize(
    ("bad", "says"),
    [([0, 1, 2], "No gradient is finite"), ([1], "The gradient of layer1.weight is not finite, all others are")],
)
def test_non_finite_says_where_to_look(bad: list[int], says: str) -> None:
    norms = noisy(5, OF)
    norms[2, bad] = math.nan
    detector = NonFinite()
    detector.observe(block(OF, norms))
    assert says in detector.findings()[0].explanation


def test_a_parameter_that_joins_late_and_gets_nothing_is_dated_from_when_it_joined() -> None:
    detector = NoGradient()
    detector.observe(block(layout(2), noisy(30, layout(2))))
    norms = noisy(25, OF)
    norms[:, 2] = 0
    detector.observe(block(OF, norms, first_step=31))
    (finding,) = detector.findings()
    assert (finding.first_step, finding.last_step) == (31, 55)


def test_large_updates_at_every_step_have_to_last() -> None:
    detector = UpdateTooLarge()
    rows = {step: [0.3] * 3 for step in range(1, 41)}
    detector.observe(block(OF, noisy(40, OF), ratios=rows))
    assert detector.findings() == ()
    detector.observe(block(OF, noisy(30, OF), first_step=41, ratios={step: [0.3] * 3 for step in range(41, 71)}))
    assert len(detector.findings()) == 1


def test_the_evidence_of_large_updates_is_from_their_spell() -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(*[[0.5, 0.9, 0.8, 0.7, *[0.15] * 6]] * 3))
    assert detector.findings()[0].evidence["median update/weight"] == 0.15


def test_weights_that_grow_from_zero_do_not_break() -> None:
    detector = UpdateTooLarge()
    whole = with_ratios(*[[math.nan, 1.9, 1.2, *[0.01] * 7]] * 3)
    whole.samples.weight_norms[0] = 0
    detector.observe(whole)
    assert detector.findings() == ()


def test_standing_still_takes_time_and_a_gradient() -> None:
    rows = {step: [1e-9] * 3 for step in range(1, 11)}
    brief = UpdateTooSmall()
    brief.observe(block(OF, noisy(10, OF), ratios=rows))
    assert brief.findings() == ()
    norms = noisy(200, OF)
    norms[:, 1] = 0
    detector = UpdateTooSmall()
    detector.observe(block(OF, norms, ratios={step: [1e-9] * 3 for step in SAMPLED}))
    assert detector.findings()[0].where == ("layer0.weight", "layer2.weight")


def test_an_unknown_learning_rate_proves_nothing() -> None:
    detector = UpdateTooSmall()
    rows = {step: [1e-9] * 3 for step in SAMPLED}
    detector.observe(block(OF, noisy(200, OF), ratios=rows, rates=math.nan))
    assert detector.findings() == ()


def test_a_weight_that_leaves_stands_still_no_more_and_its_evidence_stays() -> None:
    detector = UpdateTooSmall()
    detector.observe(with_ratios(1e-9, 1e-9, 1e-9))
    narrow = layout(1)
    detector.observe(block(narrow, noisy(50, narrow), first_step=201, ratios={250: [0.01]}))
    (finding,) = detector.findings()
    assert not finding.active
    assert finding.evidence["largest update/weight"] == pytest.approx(1e-9)
    assert "3 weight matrices" in finding.explanation


def test_totals_pinned_in_bfloat16_are_found_at_its_resolution() -> None:
    raw = noisy(60, OF, spread=0.3)
    rounded = clipped(raw, 1e-3) * (1 + 0.01 * (torch.rand(60, 1, dtype=torch.float64) - 0.5))
    coarse, fine = ClippedUpstream(), ClippedUpstream()
    coarse.observe(block(replace(OF, resolution=2.0**-7), rounded))
    fine.observe(block(OF, rounded))
    assert len(coarse.findings()) == 1
    assert fine.findings() == ()


def test_totals_that_creep_with_almost_the_same_gradient_are_no_clipping() -> None:
    creeping = noisy(1, OF) * (1 - 1e-6 * torch.arange(100, dtype=torch.float64)[:, None])
    creeping[:, 0] *= 1 + 1e-5 * torch.randn(100, dtype=torch.float64)
    detector = ClippedUpstream()
    detector.observe(block(OF, creeping))
    assert detector.findings() == ()


def test_pinned_steps_that_lie_far_apart_are_no_clipping() -> None:
    norms = noisy(400, OF, spread=0.05)
    norms[::40] = clipped(10 * noisy(10, OF, spread=0.3), 100.0)
    detector = ClippedUpstream(window=50, patience=3)
    detector.observe(block(OF, norms))
    assert detector.findings() == ()


def test_updates_that_overflow_break() -> None:
    detector = UpdateTooLarge()
    detector.observe(with_ratios(*[[2.0, 300.0, math.inf, *[math.nan] * 7]] * 3))
    (finding,) = detector.findings()
    assert finding.severity is Severity.CRITICAL
    assert (finding.first_step, finding.last_step) == (2, 4)


def test_a_bad_loss_makes_a_skipped_step_bad() -> None:
    norms = noisy(20, OF)
    norms[::5] = math.inf
    losses = {step: math.nan if step % 5 == 1 else 1.0 for step in range(1, 21)}
    detector = NonFinite()
    detector.observe(block(OF, norms, overflow=range(1, 21, 5), losses=losses))
    (finding,) = detector.findings()
    assert finding.evidence["bad steps"] == 4
    assert finding.evidence["kind"] == "NaN"
    assert "The loss itself is not finite" in finding.explanation


@pytest.mark.parametrize(("bad", "is_found"), [((7, 8, 30), True), ((7, 8), False), ((), False)])
def test_a_bad_loss_with_good_gradients_is_a_warning(bad: tuple[int, ...], is_found: bool) -> None:
    detector = NonFinite()
    losses = {step: math.nan if step in bad else 1.0 for step in range(1, 41)}
    detector.observe(block(OF, noisy(40, OF), losses=losses))
    said = detector.findings()
    assert bool(said) is is_found
    if is_found:
        assert (said[0].severity, said[0].first_step, said[0].last_step) == (Severity.WARNING, 7, 30)
        assert said[0].active
        assert "at 3 steps whose gradients are all finite" in said[0].explanation
        detector.observe(block(OF, noisy(20, OF), first_step=41, losses=dict.fromkeys(range(41, 61), 1.0)))
        assert not detector.findings()[0].active


def test_skips_are_counted_on_end() -> None:
    detector = NonFinite(skips=40)
    overflow = [*range(1, 46), *range(100, 141)]
    detector.observe(block(OF, noisy(150, OF), overflow=overflow))
    assert detector.findings()[0].evidence["steps skipped on end"] == 45


def test_the_total_before_the_first_bad_step_is_evidence() -> None:
    norms = noisy(10, OF)
    norms[6:] = math.nan
    detector = NonFinite()
    detector.observe(block(OF, norms))
    expected = float(torch.linalg.vector_norm(norms[5]))
    assert detector.findings()[0].evidence["total norm before"] == pytest.approx(expected)
