"""Profiles over depth: the line against NumPy's, the limits, and what must not raise them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.detect import ExplodingDepth, Finding, Layout, Role, Severity, Symptom, VanishingDepth
from gradguard.detect.base import Persistence, Spell
from gradguard.detect.profile import profile, trend
from tests import reference
from tests.detect.activations import sample, signals
from tests.detect.blocks import block, layout, noisy


@given(st.lists(st.floats(1e-12, 1e3), min_size=3, max_size=20), st.integers(0, 2))
def test_trend_equals_numpys_least_squares(values: list[float], holes: int) -> None:
    row = np.array(values)
    row[1 : 1 + min(holes, len(row) - 2)] = math.nan
    decades, r2 = trend(torch.tensor(row)[None])
    slope, fit = reference.line(row)
    assert decades.item() == pytest.approx(slope, rel=1e-9, abs=1e-9)
    if np.nanmax(np.abs(np.log10(row) - np.nanmean(np.log10(row)))) > 1e-6:  # a constant has no R^2
        assert r2.item() == pytest.approx(fit, abs=1e-6)


def test_profile_is_the_rms_of_all_entries_of_a_layer_and_leaves_missing_ones_out() -> None:
    of = layout(2, bias=True)
    missing = torch.tensor([[False, False, True, False]])
    found = profile(block(of, [[10.0, 1.0, 0.0, 3.0]], missing=missing), Role.WEIGHT)
    assert found[0, 0] == pytest.approx(1.0)
    assert found[0, 1].isnan()


@pytest.mark.parametrize(
    ("detector", "sign", "symptom"),
    [(VanishingDepth, 1, Symptom.VANISHING_DEPTH), (ExplodingDepth, -1, Symptom.EXPLODING_DEPTH)],
)
def test_a_steady_change_over_depth_is_found_with_place_steps_and_numbers(detector, sign, symptom) -> None:
    of, found = layout(10), detector()
    found.observe(block(of, noisy(40, of, 8.0 * sign)))
    (finding,) = found.findings()
    assert finding.symptom is symptom
    assert finding.severity is Severity.CRITICAL
    assert (finding.first_step, finding.last_step, finding.active) == (1, 40, True)
    assert finding.evidence["powers of ten over depth"] == pytest.approx(8, abs=0.5)
    assert finding.evidence["factor per layer"] == pytest.approx(10 ** (8 / 9), rel=0.2)
    assert finding.where == tuple(f"layer{i}" for i in range(8))  # half the limit away from the last layer
    assert "layer9" in str(finding)
    assert "try first" in str(finding)


@pytest.mark.parametrize("decades", [-1.5, -1.0, 0.0, 1.0, 2.5])
def test_a_profile_within_the_limits_says_nothing(decades: float) -> None:
    of = layout(12)
    for detector in (VanishingDepth(), ExplodingDepth()):
        detector.observe(block(of, noisy(100, of, decades)))
        assert detector.findings() == ()


def test_layers_that_differ_wildly_without_a_trend_say_nothing() -> None:
    of = layout(12)
    ragged = noisy(100, of) * 10.0 ** torch.tensor([0, -4] * 6, dtype=torch.float64)
    for detector in (VanishingDepth(), ExplodingDepth()):
        detector.observe(block(of, ragged))
        assert detector.findings() == ()


def test_a_short_episode_says_nothing_and_one_that_ends_is_over() -> None:
    of = layout(10)
    healthy, sick = noisy(30, of), noisy(30, of, 8.0)
    brief = VanishingDepth()
    brief.observe(block(of, torch.cat([healthy, sick[:10], healthy])))
    assert brief.findings() == ()
    cured = VanishingDepth()
    cured.observe(block(of, torch.cat([healthy, sick, healthy])))
    (finding,) = cured.findings()
    assert not finding.active
    assert finding.first_step == 31
    assert finding.last_step == 60


def test_the_warmup_is_passed_over() -> None:
    of = layout(10)
    detector = VanishingDepth(warmup=50, patience=10)
    detector.observe(block(of, torch.cat([noisy(5, of), noisy(45, of, 8.0), noisy(50, of)])))
    assert detector.findings() == ()


@pytest.mark.parametrize(("sick", "found"), [(3, False), (4, True)])
def test_a_start_that_is_far_off_is_found_by_itself(sick: int, found: bool) -> None:
    of = layout(10)
    detector = VanishingDepth()
    detector.observe(block(of, torch.cat([noisy(sick, of, 8.0), noisy(100, of)])))
    assert [(f.first_step, f.last_step, f.active) for f in detector.findings()] == [(1, sick, False)] * found


def test_biases_show_what_the_product_in_the_weights_hides() -> None:
    of = layout(10, bias=True)
    norms = noisy(40, of)
    norms[:, 1::2] *= 10.0 ** torch.linspace(-7, 0, 10, dtype=torch.float64)
    detector = VanishingDepth()
    detector.observe(block(of, norms))
    (finding,) = detector.findings()
    assert any("bias" in key for key in finding.evidence)
    lenient = VanishingDepth(bias_decades=9)
    lenient.observe(block(of, norms))
    assert lenient.findings() == ()


def test_an_underflow_to_zero_counts_as_vanishing_and_few_layers_are_not_judged() -> None:
    of = layout(10)
    norms = noisy(40, of, 8.0)
    norms[:, :3] = 0
    detector = VanishingDepth()
    detector.observe(block(of, norms))
    assert detector.findings()[0].where[:3] == ("layer0", "layer1", "layer2")
    few = layout(3)
    detector = VanishingDepth()
    detector.observe(block(few, noisy(40, few, 8.0)))
    assert detector.findings() == ()


@pytest.mark.parametrize("detector", [VanishingDepth, ExplodingDepth])
def test_bad_arguments(detector) -> None:
    with pytest.raises(ValueError, match=rf"{detector.__name__} needs decades > 0"):
        detector(0)
    with pytest.raises(ValueError, match="min_layers=2"):
        detector(min_layers=2)
    with pytest.raises(ValueError, match="Persistence needs patience >= 1"):
        detector(patience=0)


@pytest.mark.parametrize("detector", [VanishingDepth, ExplodingDepth])
def test_a_steep_line_that_does_not_fit_says_nothing(detector) -> None:
    of = layout(8)
    decades = torch.tensor([-6.0, -6, -6, 0, -6, 0, 0, 0], dtype=torch.float64) * detector.direction
    shaped = noisy(100, of) * 10**decades
    rise, fit = trend(profile(block(of, shaped), Role.WEIGHT))
    assert (rise * detector.direction > 4).all()
    assert (fit < 0.7).all()
    strict, lenient = detector(), detector(min_r2=0.0)
    for one in (strict, lenient):
        one.observe(block(of, shaped))
    assert strict.findings() == ()
    assert len(lenient.findings()) == 1


def test_severity_and_evidence_are_those_of_the_steepest_profile() -> None:
    of = layout(10)
    detector = VanishingDepth()
    detector.observe(block(of, torch.cat([noisy(30, of, 4.0), noisy(1, of, 5.5), noisy(30, of, 4.0)])))
    (finding,) = detector.findings()
    assert finding.severity is Severity.WARNING
    assert finding.evidence["powers of ten over depth"] == pytest.approx(5.5, abs=0.4)


def test_layers_without_a_gradient_are_no_part_of_the_line() -> None:
    of = layout(12)
    norms, missing = noisy(60, of), torch.zeros(60, 12, dtype=torch.bool)
    norms[:, 0] *= 1e-4  # two live layers that differ, ten that are never used: two points make no line
    for unused in (missing, None):
        dead = norms.clone()
        dead[:, 2:] = 0
        if unused is not None:
            unused[:, 2:] = True
        for detector in (VanishingDepth(), ExplodingDepth()):
            detector.observe(block(of, dead, missing=unused))
            assert detector.findings() == ()


def test_steps_without_any_gradient_do_not_count() -> None:
    of = layout(10)
    detector = VanishingDepth(warmup=10, patience=10)
    detector.observe(block(of, torch.cat([torch.zeros(50, 10), noisy(5, of), noisy(14, of, 8.0)])))
    assert detector.findings() == ()
    detector.observe(block(of, noisy(1, of, 8.0), first_step=70))
    assert detector.findings()[0].first_step == 61


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_the_profile_is_the_power_mean_of_the_norms_order(p: float) -> None:
    of = replace(layout(2, bias=True), norm_type=p)
    entries = {1.0: 100, 2.0: 10, 3.0: 100 ** (1 / 3), math.inf: 1}[p]
    found = profile(block(of, [[7.0 * entries, 0, 3.0 * entries, 0]]), Role.WEIGHT)
    assert found[0].tolist() == pytest.approx([7, 3])


def test_a_parameter_of_the_root_has_a_name_in_print() -> None:
    of = layout(10)
    rooted = replace(of, layers=("", *of.layers[1:]))
    detector = VanishingDepth()
    detector.observe(block(rooted, noisy(40, of, 8.0)))
    (finding,) = detector.findings()
    assert finding.where[0] == ""
    assert "in (root), layer1" in str(finding)
    assert "{(root): " in str(finding)


def test_persistence_begins_goes_on_and_ends_at_its_limits() -> None:
    persistence = Persistence(10)
    for step in range(1, 21):
        persistence.observe(step, holds=step > 8)
    assert persistence.spell == Spell(9, 20, active=True)
    for step in range(21, 26):
        assert persistence.observe(step, holds=False)  # half of the window still holds
    assert not persistence.observe(26, holds=False)
    assert persistence.spell == Spell(9, 20, active=False)
    for step in range(27, 40):
        persistence.observe(step, holds=True)
    assert persistence.spell == Spell(9, 39, active=True)
    with pytest.raises(ValueError, match="got 5 and 0"):
        Persistence(5, share=0)


def test_one_steep_step_long_before_is_no_evidence() -> None:
    of = layout(10)
    detector = VanishingDepth()
    detector.observe(block(of, torch.cat([noisy(15, of), noisy(1, of, 9.0), noisy(100, of), noisy(30, of, 3.6)])))
    (finding,) = detector.findings()
    assert finding.severity is Severity.WARNING
    assert finding.evidence["powers of ten over depth"] < 4.5


def test_high_orders_do_not_underflow() -> None:
    of = replace(layout(2), norm_type=64.0)
    found = profile(block(of, [[1e-8, 1e-6]]), Role.WEIGHT)
    assert found[0].tolist() == pytest.approx([1e-8 * 100 ** (-1 / 64), 1e-6 * 100 ** (-1 / 64)], rel=1e-6)


@pytest.mark.parametrize(("decades", "is_found"), [(2.8, False), (3.5, True)])
def test_blocks_that_repeat_are_compared_place_by_place(decades: float, is_found: bool) -> None:
    places = [f"blocks.{i}.{part}" for i in range(6) for part in ("qkv", "gate", "out")]
    of = replace(layout(18), layers=tuple(places), names=tuple(f"{place}.weight" for place in places))
    kinds = 10.0 ** torch.tensor([0.0, -4.0, 1.0] * 6, dtype=torch.float64)  # differ by more than depth adds
    norms = noisy(40, of, decades * 17 / 15, spread=0.01) * kinds  # the blocks' places span 15 of 17 steps
    detector = VanishingDepth()
    detector.observe(block(of, norms))
    said = detector.findings()
    assert bool(said) is is_found
    for one in said:
        assert one.evidence["powers of ten over depth"] == pytest.approx(decades, abs=0.1)
        assert all(layer.endswith(said[0].where[0].rpartition(".")[2]) for layer in one.where)
    level = VanishingDepth()
    level.observe(block(of, noisy(40, of, spread=0.01) * kinds))
    assert level.findings() == ()


@pytest.mark.parametrize(
    ("detector", "decades", "is_found"),
    [
        (VanishingDepth, 5.1, True),
        (VanishingDepth, 4.9, False),
        (ExplodingDepth, -2.1, True),
        (ExplodingDepth, -1.9, False),
        (ExplodingDepth, 5.1, False),
    ],
)
def test_gradients_by_the_layers_outputs_are_judged_where_weights_hide_them(detector, decades, is_found) -> None:
    of, back = layout(6), signals(back=10 ** (-decades / 5))
    for sick, is_enough in (((2, 3, 4), True), ((2, 3), False)):
        samples = [sample(step, signals=back if step in sick else signals()) for step in (1, 2, 3, 4, 10, 50)]
        found = detector()
        found.observe(block(of, noisy(60, of), activations=samples))
        said = found.findings()
        assert bool(said) is (is_found and is_enough)
        for one in said:
            assert (one.first_step, one.last_step, one.active) == (2, 4, False)
            assert one.evidence["powers of ten over depth"] == pytest.approx(abs(decades))
            assert "size of the gradient by each layer's output" in one.evidence


def test_the_first_sample_is_enough_where_the_gradient_explodes() -> None:
    of, samples = layout(6), [sample(1, signals=signals(back=3.0)), sample(2, signals=signals())]
    (said,) = found_in(ExplodingDepth(), of, samples)
    assert (said.first_step, said.last_step, said.active, said.severity) == (1, 1, False, Severity.WARNING)
    assert found_in(VanishingDepth(), of, [sample(1, signals=signals(back=0.01)), sample(2, signals=signals())]) == ()


def found_in(detector, of, samples) -> tuple[Finding, ...]:
    detector.observe(block(of, noisy(60, of), activations=samples))
    return detector.findings()


def test_what_weights_show_and_what_outputs_show_is_one_spell() -> None:
    of = layout(6)
    detector = VanishingDepth()
    samples = [sample(step, signals=signals(back=0.01)) for step in (1, 2, 3, 4)]
    detector.observe(block(of, torch.cat([noisy(30, of), noisy(30, of, 8.0)]), activations=samples))
    (said,) = detector.findings()
    assert (said.first_step, said.last_step, said.active) == (1, 60, True)


@pytest.mark.parametrize(
    ("share", "has_norms", "is_found"), [(0.9e-5, True, False), (1.1e-5, True, True), (0.9e-5, False, True)]
)
def test_biases_that_a_norm_takes_out_again_are_none_of_the_profile(
    share: float, has_norms: bool, is_found: bool
) -> None:
    places = [(f"{2 * i}", f"{2 * i}.{kind}") for i in range(6) for kind in ("weight", "bias")]
    roles, sizes = [Role.WEIGHT, Role.BIAS] * 6, [100, 10] * 6
    for at in (8, 5, 2) if has_norms else ():  # behind the first, the second and the fourth layer
        places.insert(at, (f"{places[at - 1][0]}n", f"{places[at - 1][0]}n.weight"))
        roles.insert(at, Role.OTHER)
        sizes.insert(at, 10)
    of = Layout("optimizer", tuple(n for _, n in places), tuple(p for p, _ in places), tuple(sizes), tuple(roles))
    norms = torch.tensor([sizes] * 40, dtype=torch.float64).sqrt()
    for i, name in enumerate(of.names):
        if roles[i] is Role.BIAS and name[0] in "024":
            norms[:, i] *= share
    detector = VanishingDepth(bias_decades=3.0)
    detector.observe(block(of, norms))
    assert bool(detector.findings()) is is_found
