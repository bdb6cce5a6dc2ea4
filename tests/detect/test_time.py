"""Vanishing and exploding over time, and gates that stand still: each at and beside its limit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from gradguard.detect import (
    Block,
    ExplodingTime,
    GateStatistics,
    InTime,
    Profile,
    SaturatedGates,
    Severity,
    Symptom,
    VanishingTime,
)
from gradguard.detect.vanishing_time import opens
from tests.detect.blocks import block, layout, noisy
from tests.detect.in_time import gate, profile, sample

OF = layout(3)
STEPS = range(100, 1001, 100)
SHORT = 0.5  # its horizon is 6.6 steps


def run(of: Profile | Sequence[Profile], *, losses: Sequence[float] | None = None, lag: int | None = None) -> Block:
    """A thousand steps, and a look at each hundredth."""
    profiles = [of] * len(STEPS) if isinstance(of, Profile) else of
    looks = [sample(step, one, lag=lag) for step, one in zip(STEPS, profiles, strict=True)]
    known = None if losses is None else dict(enumerate(losses, start=1))
    return block(OF, noisy(1000, OF), losses=known, in_time=looks)


def rests(level: float = 0.17) -> list[float]:
    return [1.1, 0.8, 0.5, 0.3] * 5 + [level] * 980


class TestVanishing:
    def test_a_short_horizon_and_a_loss_that_rests_is_a_warning(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(SHORT), losses=rests()))
        (finding,) = detector.findings()
        assert (finding.symptom, finding.severity) == (Symptom.VANISHING_TIME, Severity.WARNING)
        assert finding.where == ("rnn.l0",)
        assert (finding.first_step, finding.last_step, finding.active) == (300, 1000, True)
        assert finding.evidence["horizon in steps"] == pytest.approx(math.log(0.01) / math.log(0.5))
        assert finding.evidence["length of the sequences"] == 200
        assert finding.evidence["change per step"] == pytest.approx(0.5)
        assert finding.evidence["loss now"] == pytest.approx(0.17)
        assert "6.64 of 200 steps" in finding.explanation

    @pytest.mark.parametrize(
        "losses",
        [
            [1.0] * 10 + [0.05] * 990,  # learnt
            [0.999**step for step in range(1000)],  # falls
        ],
    )
    def test_none_where_the_loss_falls_or_was_learnt(self, losses: list[float]) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(SHORT), losses=losses))
        assert detector.findings() == ()

    def test_none_where_the_loss_is_at_every_step(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(SHORT, at_end=False), losses=rests()))
        assert detector.findings() == ()

    @pytest.mark.parametrize(("share", "found"), [(0.099, True), (0.101, False)])
    def test_the_horizon_is_measured_by_the_length(self, share: float, found: bool) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(0.01 ** (1 / (200 * share))), losses=rests()))
        assert bool(detector.findings()) is found

    def test_a_module_is_as_good_as_its_layer_that_remembers_longest(self) -> None:
        short, long = profile(SHORT, layer="rnn.l0"), profile(0.999, layer="rnn.l1")
        looks = [InTime(step, None, {"rnn": (short, long)}) for step in STEPS]
        detector = VanishingTime()
        detector.observe(block(OF, noisy(1000, OF), losses=dict(enumerate(rests(), 1)), in_time=looks))
        assert detector.findings() == ()

    def test_without_a_loss_nobody_can_say(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(SHORT)))
        (finding,) = detector.findings()
        assert finding.severity is Severity.INFO
        assert "no loss is recorded" in finding.explanation

    @pytest.mark.parametrize(("sign", "found"), [(1, False), (-1, True)])
    def test_a_profile_that_opens_is_given_time(self, sign: int, found: bool) -> None:
        looks = [sample(20 * k, profile(0.6 + 0.003 * sign * k)) for k in range(1, 51)]
        detector = VanishingTime()
        detector.observe(block(OF, noisy(1000, OF), losses=dict(enumerate(rests(), 1)), in_time=looks))
        assert bool(detector.findings()) is found

    @pytest.mark.parametrize(
        ("memory", "level", "is_found"),
        [(0.94, 1.4, True), (0.96, 1.4, False), (0.94, 1.2, False)],  # horizons of 74 and 113 of 200 steps
    )
    def test_where_nothing_is_learnt_a_horizon_of_half_is_short(
        self, memory: float, level: float, is_found: bool
    ) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(memory), losses=[1.4] * 20 + [level] * 980))
        assert bool(detector.findings()) is is_found

    @pytest.mark.parametrize(("speed", "is_found"), [(0.002, True), (0.018, False)])
    def test_where_nothing_is_learnt_a_profile_has_to_open_fast(self, speed: float, is_found: bool) -> None:
        looks = [sample(20 * k, profile(min(0.6 + speed * k, 0.98))) for k in range(1, 51)]
        detector = VanishingTime()
        detector.observe(block(OF, noisy(1000, OF), losses=dict.fromkeys(range(1, 1001), 1.4), in_time=looks))
        assert bool(detector.findings()) is is_found

    def test_it_is_over_once_the_gradient_gets_there(self) -> None:
        detector = VanishingTime()
        detector.observe(run([profile(SHORT)] * 6 + [profile(0.999)] * 4, losses=rests()))
        (finding,) = detector.findings()
        assert (finding.severity, finding.active) == (Severity.INFO, False)

    @pytest.mark.parametrize(
        ("losses", "severity"),
        [(rests(), Severity.WARNING), (None, Severity.INFO), ([0.999**k for k in range(1000)], None)],
    )
    def test_with_the_tasks_lag_the_gradient_there_counts(
        self, losses: list[float] | None, severity: Severity | None
    ) -> None:
        for memory, found in ((0.01 ** (1 / 99), True), (0.01 ** (1 / 101), False)):
            detector = VanishingTime()
            detector.observe(run(profile(memory, at_end=False), losses=losses, lag=100))
            assert [f.severity for f in detector.findings()] == ([severity] if found and severity else [])

    def test_a_lag_beyond_the_sequences_is_out_of_reach(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(0.999, length=35), losses=rests(), lag=150))
        (finding,) = detector.findings()
        assert finding.evidence["left at that lag"] == 0
        assert "The sequences have 35 steps" in finding.explanation
        assert "reaches 150 steps back, beyond that" in finding.explanation

    def test_what_grows_on_its_way_back_is_measured_by_what_came_so_far(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(1.5), losses=rests(), lag=100))
        assert detector.findings() == ()

    def test_a_lag_within_the_horizon_is_no_fault(self) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(SHORT), losses=rests(), lag=5))
        assert detector.findings() == ()

    def test_a_single_long_memory_among_short_ones_ends_nothing(self) -> None:
        profiles = [profile(SHORT)] * 5 + [profile(0.999)] + [profile(SHORT)] * 4
        detector = VanishingTime()
        detector.observe(run(profiles, losses=rests()))
        assert detector.findings()[0].active

    @pytest.mark.parametrize("memory", [torch.zeros(200), torch.full((200,), math.nan)])
    def test_no_gradient_is_not_its_business(self, memory: torch.Tensor) -> None:
        detector = VanishingTime()
        detector.observe(run(profile(memory.double()), losses=rests(), lag=100))
        assert detector.findings() == ()

    @pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.0}, {"min_steps": -1}, {"patience": 0}])
    def test_refuses_arguments_out_of_range(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValueError, match="VanishingTime needs"):
            VanishingTime(**wrong)


def test_what_opens_rises_in_rank_and_threefold() -> None:
    assert opens([1.0, 2.0, 1.5, 3.0, 4.0, 5.0, 7.0, 6.0])
    assert not opens([1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7])  # too little
    assert not opens([1.0, 9.0, 2.0, 8.0, 1.5, 9.0, 1.0, 4.0])  # no order
    assert not opens([1.0, 2.0, 4.0])  # too few
    assert not opens([0.0] * 8)


class TestExploding:
    @pytest.mark.parametrize(
        ("growth", "severity"), [(990.0, None), (1010.0, Severity.WARNING), (1.1e6, Severity.CRITICAL)]
    )
    def test_growth_over_the_sequence(self, growth: float, severity: Severity | None) -> None:
        detector = ExplodingTime()
        detector.observe(run(profile(growth ** (1 / 199))))
        assert [f.severity for f in detector.findings()] == ([] if severity is None else [severity])
        if severity is not None:
            assert detector.findings()[0].evidence["growth"] == pytest.approx(growth)

    def test_a_gradient_that_overflows_on_its_way_is_critical(self) -> None:
        memory = torch.tensor([1.0] * 100 + [math.inf] * 50 + [math.nan] * 50, dtype=torch.float64)
        detector = ExplodingTime()
        detector.observe(run(profile(memory)))
        (finding,) = detector.findings()
        assert finding.severity is Severity.CRITICAL
        assert "it overflows" in finding.explanation

    @pytest.mark.parametrize("is_steady", [True, False])
    def test_a_total_gradient_of_a_loop_has_to_grow_steadily(self, is_steady: bool) -> None:
        leaps = torch.where(torch.arange(200) < 190, 1.0, 1e6).double()  # a loss at the first steps
        detector = ExplodingTime()
        detector.observe(run(replace(profile(1.2 if is_steady else leaps), is_total=True)))
        assert bool(detector.findings()) is is_steady

    def test_names_the_layers_that_explode_alone(self) -> None:
        looks = [InTime(s, None, {"rnn": (profile(0.9, layer="rnn.l0"), profile(1.1, layer="rnn.l1"))}) for s in STEPS]
        detector = ExplodingTime()
        detector.observe(block(OF, noisy(1000, OF), in_time=looks))
        assert detector.findings()[0].where == ("rnn.l1",)


class TestGates:
    @pytest.mark.parametrize(
        ("gates", "cells", "what"),
        [
            ([gate("f", 0.01, shut=0.5)], 0.0, "Forget gate shut"),
            ([gate("f", 0.99, open_=0.5)], 0.5, "Forget gate stuck open"),
            ([gate("o", 0.01, shut=0.5)], 0.0, "Output gate shut"),
            ([gate("f", 0.1, shut=0.3)], 0.0, None),
            ([gate("f", 0.99, open_=1.0)], 0.4, None),  # as chrono_ makes it
            ([gate("o", 0.9, open_=1.0)], 0.0, None),
            ([gate("i", 0.01, shut=1.0), gate("g", 0.9, open_=1.0)], 0.0, None),
            ([gate("f", 0.9), gate("i", 4e-4)], 0.0, "Nothing gets in"),  # 0.08 in 200 steps
            ([gate("f", 0.9), gate("i", 6e-4)], 0.0, None),
            ([gate("f", 0.9997)], 0.0, "Nothing gets in"),  # there is no other gate
            ([], 0.0, None),
        ],
    )
    def test_most_units_have_to_stand_still(self, gates: list[GateStatistics], cells: float, what: str | None) -> None:
        detector = SaturatedGates()
        detector.observe(run(profile(0.99, gates=gates, cells=cells)))
        found = detector.findings()
        assert [f.explanation.partition(":")[0] for f in found] == ([] if what is None else [what])
        if found:
            assert (found[0].severity, found[0].where) == (Severity.WARNING, ("rnn.l0",))

    def test_torchs_z_keeps_and_is_told_as_such(self) -> None:
        detector = SaturatedGates()
        detector.observe(run(profile(0.5, gates=[gate("z", 0.01, shut=1.0)], keeps="z")))
        assert "Forget gate shut" in detector.findings()[0].explanation

    def test_it_is_over_once_they_move(self) -> None:
        shut, moves = profile(0.5, gates=[gate("f", 0.01, shut=1.0)]), profile(0.5, gates=[gate("f", 0.5)])
        detector = SaturatedGates()
        detector.observe(run([shut] * 6 + [moves] * 4))
        (finding,) = detector.findings()
        assert (finding.severity, finding.active) == (Severity.INFO, False)
        assert (finding.first_step, finding.last_step) == (100, 600)
