"""The first steps: units alike, an end that sees nothing, signals and gradients that shrink or grow."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from gradguard.detect import Activations, Finding, PoorInitialisation, Severity, Signal
from tests.detect.activations import sample, signals
from tests.detect.blocks import block, layout, noisy

OF = layout(4)
FIRST = (1, 2, 3, 4, 8, 16)


def found(*samples: Activations, **settings: float) -> list[Finding]:
    detector = PoorInitialisation(**settings)
    detector.observe(block(OF, noisy(50, OF), activations=samples))
    return list(detector.findings())


def start(of: list[Signal]) -> list[Finding]:
    return found(*(sample(step, signals=of) for step in FIRST))


def test_a_usual_start_says_nothing() -> None:
    assert start(signals()) == []
    assert start(signals(0.5, 0.3)) == []  # as torch's defaults have it
    assert start([]) == []
    assert start(signals(layers=1)) == []


@pytest.mark.parametrize(("distinct", "is_found"), [(2e-3, False), (5e-4, True)])
def test_units_that_are_alike(distinct: float, is_found: bool) -> None:
    said = start([*signals(distinct=distinct)[:-1], signals()[-1]])
    assert bool(said) is is_found
    if is_found:
        assert said[0].severity is Severity.CRITICAL
        assert said[0].where == tuple(f"layer{i}" for i in range(5))
        assert "units of a layer give the same" in said[0].explanation


def test_a_last_layer_of_units_alike_and_one_of_zeros_are_no_fault() -> None:
    usual = signals()
    assert start([*usual[:-1], Signal("head", 0.1, 0.01, 1e-9, 0.5)]) == []
    assert start([*usual[:-1], Signal("head", 0.0, 0.01)]) == []
    zero_branch = Signal("branch", 0.0, 0.01)
    assert start([usual[0], zero_branch, usual[1], zero_branch, usual[2]]) == []


@pytest.mark.parametrize(("varies", "is_found"), [(0.02, False), (0.005, True)])
def test_an_end_that_hardly_depends_on_the_input(varies: float, is_found: bool) -> None:
    first, *_ = signals()
    rest = [Signal(f"layer{i}", 1.0, 0.01, 0.9, varies) for i in range(1, 6)]
    said = start([first, *rest])
    assert bool(said) is is_found
    assert all("hardly depends on what goes in" in one.explanation for one in said)


def test_what_is_nothing_but_rounding_does_not_see() -> None:
    first, *_ = signals()
    rest = [Signal(f"layer{i}", 1.0, 0.01, 0.9, 1e-6) for i in range(1, 6)]
    for rms, is_found in ((1e-6, True), (1e-4, False)):
        assert bool(start([first, *rest[:2], Signal("rounding", rms, 0.01, 0.9, 0.9), *rest[2:]])) is is_found


def test_a_network_of_zeros_is_blind() -> None:
    (said,) = start([Signal("a", 0.0), Signal("b", 0.0), Signal("c", 0.0)])
    assert said.severity is Severity.CRITICAL


@pytest.mark.parametrize(
    ("factor", "back", "word"),
    [
        (10**0.45, 1.0, None),  # over the five hidden layers, four steps: 1.8 powers of ten
        (10**0.55, 1.0, "grows by a factor of 3.5 per layer on its way forward"),
        (10**-0.55, 1.0, "shrinks by a factor of 3.5 per layer on its way forward"),
        (1.0, 10**-1.1, None),
        (1.0, 10**-1.3, "gradient shrinks by a factor of 20 per layer on its way back"),
        (1.0, 10**0.55, None),
        (1.0, 10**0.65, "gradient grows by a factor of 4.5 per layer on its way back"),
    ],
)
def test_signals_and_gradients_that_shrink_or_grow(factor: float, back: float, word: str | None) -> None:
    said = start(signals(factor, back))
    assert [word in one.explanation for one in said] == ([True] if word else [])
    assert all(one.severity is Severity.WARNING for one in said)


@pytest.mark.parametrize(("rms", "grad", "is_found"), [(0.0, 0.0, True), (0.0, 1e-9, False), (1.0, 0.0, False)])
def test_layers_of_nothing_that_get_nothing_are_shut(rms: float, grad: float, is_found: bool) -> None:
    of = [*signals()[:3], Signal("branch", rms, grad), *signals()[3:]]
    assert [one.severity for one in start(of)] == ([Severity.WARNING] if is_found else [])


def test_embeddings_are_no_part_of_a_line_but_may_be_alike() -> None:
    small = Signal("embed", 1e-9, 1e-9, 0.9, 0.9, embeds=True)
    assert start([small, *signals(layers=4)]) == []
    (said,) = start([Signal("embed", 1.0, 0.1, 1e-9, 0.5, embeds=True), *signals()])
    assert said.where == ("embed",)
    (said,) = start([Signal(name, 1.0, 0.1, 0.0, 0.0, embeds=True) for name in ("users", "items")])
    assert "hardly depends on what goes in" in said.explanation


def test_a_fault_counts_if_it_is_there_from_the_first_samples_on() -> None:
    well, sick = signals(), signals(distinct=1e-9)
    assert found(*(sample(step, signals=well if step == 2 else sick) for step in FIRST)) == []
    assert found(*(sample(step, signals=well if step == 1 else sick) for step in FIRST)) == []
    (said,) = found(*(sample(step, signals=sick if step < 4 else well) for step in FIRST))
    assert (said.first_step, said.last_step, said.active, said.severity) == (1, 3, False, Severity.WARNING)
    shrinking = signals(factor=0.3)
    (said,) = found(*(sample(step, signals=shrinking if step < 4 else well) for step in FIRST))
    assert (said.active, said.severity) == (False, Severity.INFO)  # what it costs is made good


def test_what_is_not_finite_is_left_out() -> None:
    usual = signals()
    assert start([*usual[:2], Signal("bad", math.nan, math.inf, math.nan, math.nan), *usual[2:]]) == []


@pytest.mark.parametrize(
    "wrong",
    [{"alike": 0.0}, {"blind": -1.0}, {"fading": 0.0}, {"min_layers": 2}, {"samples": 0}, {"usual": (2.0, 10.0)}],
)
def test_arguments_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="PoorInitialisation needs"):
        PoorInitialisation(**wrong)


@pytest.mark.parametrize("norm", [0.0, 0.1])
def test_layers_of_zero_weights_that_scale_others_are_no_fault(norm: float) -> None:
    film = Signal("layer3", 1.0, 0.01, 0.0, 0.0)  # weights 0, biases 1
    for of in ([*signals()[:3], film, *signals()[4:]], [replace(film, embeds=True), *signals()[:3], *signals()[4:]]):
        detector = PoorInitialisation()
        seen = block(
            OF,
            noisy(50, OF),
            activations=[sample(step, signals=of) for step in FIRST],
            ratios=dict.fromkeys(FIRST, [0.01] * 4),
        )
        norms = torch.ones_like(seen.samples.weight_norms)
        norms[0, 3] = norm  # by the second step they have moved
        detector.observe(replace(seen, samples=replace(seen.samples, weight_norms=norms)))
        assert bool(detector.findings()) is (norm > 0)


def test_units_that_rise_and_fall_as_one_are_alike_whatever_their_biases_are() -> None:
    for apart, is_found in ((0.06, False), (0.04, True)):
        said = start([*(replace(one, apart=apart) for one in signals()[:-1]), signals()[-1]])
        assert bool(said) is is_found
    some = [replace(one, apart=0.01 if i < 2 else 0.9) for i, one in enumerate(signals())]
    assert start(some) == []  # single layers may do one thing only


@pytest.mark.parametrize(
    ("rms", "pull", "losses", "alone", "is_found"),
    [
        (6.0, 7.0, 8.0, True, True),
        (4.0, 7.0, 8.0, True, False),  # no large output
        (6.0, 5.0, 8.0, True, False),  # the loss does not come of its size: it was trained before
        (6.0, math.nan, 8.0, True, False),
        (6.0, 7.0, None, True, False),
        (6.0, 7.0, -8.0, True, False),
        (6.0, 7.0, 8.0, False, True),  # of a game, each of whose players has a loss of its own
        (0.5, 7.9, 8.0, True, True),  # logits that are products of it with something large
        (0.5, 8.9, 8.0, True, False),
        (0.5, 7.1, 8.0, True, False),
    ],
)
def test_outputs_that_are_too_large_to_begin_with(
    rms: float, pull: float, losses: float | None, alone: bool, is_found: bool
) -> None:
    of = [*signals()[:-1], replace(signals()[-1], rms=rms, pull=pull)]
    detector = PoorInitialisation()
    seen = block(
        OF,
        noisy(50, OF),
        activations=[sample(step, signals=of) for step in FIRST],
        losses=None if losses is None else dict.fromkeys(range(1, 51), losses),
    )
    detector.observe(replace(seen, alone=alone))
    said = detector.findings()
    assert bool(said) is is_found
    assert all(one.severity is Severity.WARNING and "most of the loss of 8" in one.explanation for one in said)


@pytest.mark.parametrize(("factor", "is_found"), [(11.0, True), (1 / 11, True), (9.0, False), (1.0, False)])
def test_three_layers_are_enough_where_each_is_ten_times_as_large(factor: float, is_found: bool) -> None:
    assert bool(start(signals(factor, layers=3))) is is_found


def test_heads_with_a_bias_behind_a_small_trunk_are_no_fault() -> None:
    trunk = signals(layers=2)
    for varies in (0.0, 1.8e-3):
        heads = [Signal(name, 4.6, 0.01, 1e-3, varies) for name in ("policy", "value")]
        assert start([*trunk, *heads]) == []


@pytest.mark.parametrize(("varies", "is_found"), [(1e-7, True), (1e-3, False)])
def test_tables_that_are_too_small_to_be_seen_leave_the_end_blind(varies: float, is_found: bool) -> None:
    tables = [Signal(name, 1e-5, 1e-8, 0.9, 0.9, embeds=True) for name in ("users", "items")]
    said = start([*tables, Signal("body", 0.1, 0.01, 0.9, varies), Signal("head", 0.1, 0.01, 0.9, varies)])
    assert bool(said) is is_found
    assert all(one.where == ("body", "head") for one in said)


def weighed(weights: list[float], gradients: list[float], *, until: int = 50) -> list[Finding]:
    """Sampled steps that show no layer, but weights; the first weight grows from that step on."""
    seen = block(OF, torch.tensor([gradients] * 50), ratios=dict.fromkeys(FIRST, [0.01] * 4))
    norms = torch.tensor([weights] * len(FIRST), dtype=torch.float64)
    norms[torch.tensor(FIRST) >= until, 0] = 1.0
    detector = PoorInitialisation()
    detector.observe(replace(seen, samples=replace(seen.samples, weight_norms=norms)))
    return list(detector.findings())


def test_two_weights_that_are_zero_and_get_nothing_keep_each_other_there() -> None:
    (said,) = weighed([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0])
    assert (said.severity, said.active, said.where) == (Severity.WARNING, True, ("layer0", "layer1"))
    assert "2 weights are zero, and so are their gradients" in said.explanation
    assert weighed([0.0, 0.0, 1.0, 1.0], [0.0, 1.0, 1.0, 1.0]) == []  # the other one gets away
    assert weighed([1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]) == []  # that is another fault
    assert weighed([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], until=3) == []
    (said,) = weighed([0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0], until=8)
    assert (said.active, said.last_step) == (False, 4)


@pytest.mark.parametrize(
    ("rms", "word"), [(9.0, None), (11.0, "as large as 11"), (1.1e-3, None), (9e-4, "as small as 9.0e-04")]
)
def test_layers_whose_outputs_are_far_too_small_or_large(rms: float, word: str | None) -> None:
    of = [Signal(f"layer{i}", rms, 0.01, 0.9, 0.8) for i in range(3)]
    said = start([*of, Signal("head", 1.0, 0.01, 0.9, 0.8)])
    assert [word in one.explanation for one in said] == ([True] if word else [])
    assert start([of[0], *signals(layers=4)]) == []  # one of several


@pytest.mark.parametrize(("distinct", "is_found"), [(2e-3, False), (5e-4, True)])
def test_a_table_whose_columns_are_alike_is_a_fault_even_as_the_only_layer(distinct: float, is_found: bool) -> None:
    assert bool(start([Signal("users", 0.1, 0.01, distinct, 0.9, apart=0.9, embeds=True)])) is is_found
