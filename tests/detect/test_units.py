"""Units that do nothing: at both sides of each limit, and told apart from units that are sparse."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gradguard.detect import Activations, Block, DeadUnits, Finding, SaturatedUnits, Severity, Units
from tests.detect.activations import sample, units
from tests.detect.blocks import block, layout, noisy

OF = layout(4)
SAMPLED = [1, 2, 4, 8, 16, 32, 50, 100, 150, 200]


def seen(*samples: Activations) -> Block:
    return block(OF, noisy(200, OF), activations=samples)


def found(detector: DeadUnits | SaturatedUnits, *samples: Activations) -> list[Finding]:
    detector.observe(seen(*samples))
    return list(detector.findings())


@pytest.mark.parametrize(("share", "severity"), [(0.69, None), (0.7, Severity.WARNING), (1.0, Severity.CRITICAL)])
def test_a_layer_is_dead_from_seven_units_in_ten(share: float, severity: Severity | None) -> None:
    said = found(DeadUnits(), *(sample(step, units(share)) for step in SAMPLED))
    assert [one.severity for one in said] == ([severity] if severity else [])


@pytest.mark.parametrize(("share", "is_found"), [(0.49, False), (0.5, True)])
def test_a_layer_is_saturated_from_half_of_its_units(share: float, is_found: bool) -> None:
    tanh = units(saturated=share, activation="tanh")
    said = found(SaturatedUnits(), *(sample(step, tanh) for step in SAMPLED))
    assert bool(said) is is_found
    if is_found:
        assert said[0].where == ("layer0",)
        assert said[0].evidence["saturated units"] == {"layer0": "50 of 100"}
        assert "50 of 100 units of a layer sit at an end of their tanh" in said[0].explanation


@pytest.mark.parametrize(
    ("active", "activation", "is_found"), [(0.24, "tanh", True), (0.26, "tanh", False), (0.24, "relu", False)]
)
def test_a_layer_is_saturated_where_most_of_its_entries_are(active: float, activation: str, is_found: bool) -> None:
    of = units(saturated=0.2, activation=activation, active=active)
    said = found(SaturatedUnits(), *(sample(step, of) for step in SAMPLED))
    assert bool(said) is is_found
    assert all("76% of what the units of a layer give sits at an end of their tanh" in one.explanation for one in said)


def test_a_network_that_has_learnt_may_be_sure() -> None:
    of = units(saturated=0.2, activation="tanh", active=0.2)
    losses = {step: 2.3 if step <= 10 else 0.4 for step in range(1, 201)}
    for sick, is_found in ((SAMPLED, True), (SAMPLED[6:], False)):
        samples = [sample(step, of if step in sick else units(activation="tanh")) for step in SAMPLED]
        detector = SaturatedUnits(min_steps=0)
        detector.observe(block(OF, noisy(200, OF), activations=samples, losses=losses))
        assert bool(detector.findings()) is is_found


def test_units_that_fire_now_and_then_are_sparse_and_not_dead() -> None:
    generator = torch.Generator().manual_seed(0)
    for rate, dead in ((0.01, False), (0.0, True)):  # of the entries of a batch of 64
        samples = []
        for step in range(1, 400, 10):
            silent = torch.rand(100, 64, generator=generator).ge(rate).all(1)
            assert silent.sum() > 25  # at a single sample, many look dead
            samples.append(sample(step, Units("layer0", "relu", silent, torch.zeros(100, dtype=torch.bool), rate, 64)))
        detector = DeadUnits()
        detector.observe(block(OF, noisy(400, OF), activations=samples))
        assert bool(detector.findings()) is dead


def test_layers_that_select_as_many_units_at_every_entry_have_no_dead_ones() -> None:
    top = [Activations(step, (), (units(0.8, active=0.1),)) for step in SAMPLED]
    assert [one.severity for one in found(DeadUnits(), *top)] == [Severity.INFO]
    all_off = [Activations(step, (), (units(1.0, active=0.0),)) for step in SAMPLED]
    assert [one.severity for one in found(DeadUnits(), *all_off)] == [Severity.CRITICAL]


def test_few_entries_are_not_enough() -> None:
    few = [sample(step, units(0.9, entries=4)) for step in range(1, 41)]  # 160 entries
    assert found(DeadUnits(), *few) == []
    more = [sample(step, units(0.9, entries=4)) for step in range(1, 200)]
    assert found(DeadUnits(), *more)[0].evidence["entries looked at"] >= 200


def test_a_unit_that_fires_once_begins_anew() -> None:
    samples = [sample(step, units(0.9)) for step in SAMPLED]
    alive = [sample(one.step, units(0.0)) if one.step in (8, 50) else one for one in samples]
    assert found(DeadUnits(), *samples)
    assert found(DeadUnits(), *alive) == []


def test_one_finding_for_all_layers_with_its_steps_and_its_end() -> None:
    sick = [sample(step, units(0.8), units(0.95, layer="layer1"), units(0.1, layer="layer2")) for step in SAMPLED[:8]]
    well = [sample(step, units(0.0), units(0.0, layer="layer1")) for step in (110, 120, 130, 140)]
    (said,) = found(DeadUnits(), *sick)
    assert said.where == ("layer0", "layer1")
    assert said.first_step == 8  # the fourth sample, of 256 entries
    assert (said.last_step, said.active) == (100, True)
    (said,) = found(DeadUnits(), *sick, *well)
    assert (said.last_step, said.active, said.severity) == (100, False, Severity.INFO)


def test_a_layer_that_changes_its_width_begins_anew() -> None:
    samples = [sample(step, units(0.9, of=100 if step < 16 else 120)) for step in SAMPLED[:6]]
    assert found(DeadUnits(), *samples) == []


@pytest.mark.parametrize(
    "wrong", [{"share": 0.0}, {"share": 1.1}, {"samples": 0}, {"min_entries": 0}, {"min_steps": -1}]
)
@pytest.mark.parametrize("kind", [DeadUnits, SaturatedUnits])
def test_arguments_out_of_range(kind: type[DeadUnits | SaturatedUnits], wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs 0 < share <= 1"):
        kind(**wrong)


def test_a_block_without_looks_says_nothing() -> None:
    for detector in (DeadUnits(), SaturatedUnits()):
        detector.observe(replace(seen(), activations=()))
        assert detector.findings() == ()


def test_of_two_functions_behind_one_layer_one_may_be_dead() -> None:
    samples = [sample(step, units(0.9), units(0.0, activation="tanh")) for step in SAMPLED]
    (said,) = found(DeadUnits(), *samples)
    assert said.where == ("layer0",)
    assert "behind their relu" in said.explanation


def test_a_layer_that_is_no_longer_called_is_not_sick_any_more() -> None:
    other = units(0.0, layer="layer1")
    samples = [sample(step, *([units(0.9)] if step <= 50 else []), other) for step in SAMPLED]
    (said,) = found(DeadUnits(), *samples)
    assert (said.active, said.last_step, said.severity) == (False, 50, Severity.INFO)


@pytest.mark.parametrize(("share", "is_found"), [(0.99, False), (1.0, True)])
def test_an_output_is_dead_where_all_of_it_is(share: float, is_found: bool) -> None:
    of = replace(units(share), is_output=True)
    assert bool(found(DeadUnits(), *(sample(step, of) for step in SAMPLED))) is is_found


@pytest.mark.parametrize(
    ("loss", "steps", "alone", "is_found"),
    [(1.2, 200, True, True), (0.9, 200, True, False), (1.2, 140, True, False), (1.2, 200, False, False)],
)
def test_an_output_may_sit_at_its_ends_unless_nothing_was_learnt_by_it(
    loss: float, steps: int, alone: bool, is_found: bool
) -> None:
    of = replace(units(saturated=0.9, activation="tanh", active=0.1), is_output=True)
    sampled = [step for step in range(10, 201, 10) if step <= steps]
    losses = {step: 2.0 if step <= 10 else loss for step in range(1, steps + 1)}
    seen = block(OF, noisy(steps, OF), activations=[sample(step, of) for step in sampled], losses=losses)
    detector = SaturatedUnits()
    detector.observe(replace(seen, alone=alone))
    assert bool(detector.findings()) is is_found


@pytest.mark.parametrize(("loss", "severity"), [(0.21, Severity.WARNING), (0.19, Severity.INFO)])
def test_a_network_that_has_learnt_nearly_all_may_be_saturated(loss: float, severity: Severity) -> None:
    tanh = units(saturated=0.9, activation="tanh")
    losses = {step: 1.0 if step <= 10 else loss for step in range(1, 201)}
    detector = SaturatedUnits()
    detector.observe(block(OF, noisy(200, OF), activations=[sample(s, tanh) for s in SAMPLED], losses=losses))
    assert [one.severity for one in detector.findings()] == [severity]
