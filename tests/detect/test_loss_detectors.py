"""What is said of a loss: spikes, swings, climbs, and runs that hardly move; and what is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch

from gradguard.detect import (
    AbstractDetector,
    Finding,
    LossSpike,
    OscillatingLoss,
    Severity,
    SlowConvergence,
    UpdateTooLarge,
)
from tests.detect.blocks import block, cut, layout, noisy

OF = layout(3)


def noise(n: int, size: float, seed: int = 0) -> list[float]:
    return (size * torch.randn(n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)).tolist()


def falling(n: int = 400, *, floor: float = 0.2, speed: float = 0.02, scatter: float = 0.1) -> list[float]:
    return [(floor + 2 * math.exp(-speed * t)) * (1 + e) for t, e in enumerate(noise(n, scatter))]


def found(
    detector: AbstractDetector, losses: Sequence[float], moved: float | Sequence[float] = 1e-3, *, alone: bool = True
) -> list[Finding]:
    steps = range(1, len(losses) + 1)
    distance = dict(zip(steps, moved, strict=True)) if isinstance(moved, Sequence) else moved
    seen = block(OF, noisy(len(losses), OF), losses=dict(zip(steps, losses, strict=True)), moved=distance)
    detector.observe(replace(seen, alone=alone))
    return list(detector.findings())


HEALTHY: dict[str, Callable[[], list[float]]] = {
    "falls": falling,
    "rests on noise": lambda: [1 + e for e in noise(600, 0.3)],
    "falls to nothing with outliers": lambda: [
        x * (10 if i % 37 == 0 else 1) for i, x in enumerate(falling(floor=1e-6))
    ],
    "passes zero": lambda: [x - 1 for x in falling()],
    "is negative": lambda: [x - 10 for x in falling()],
    "is zero": lambda: [0.0] * 400,
    "is constant": lambda: [2.3] * 400,
    "has heavy tails": lambda: [abs(e) ** 3 for e in noise(600, 1.0)],
    "three steps": lambda: [2.0, 100.0, 1.0],
    "single bad batches": lambda: [x + 50 * (i in (150, 151, 300)) for i, x in enumerate(falling())],
    "never falls, at large steps": lambda: [2.3 + e for e in noise(600, 0.02)],
}


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("kind", [LossSpike, OscillatingLoss, SlowConvergence])
def test_a_healthy_loss_says_nothing(kind: type[AbstractDetector], name: str) -> None:
    assert found(kind(), HEALTHY[name]()) == []


def spiked(first: int, last: int, height: float) -> list[float]:
    return [x + height * (first <= i + 1 <= last) for i, x in enumerate(falling())]


def test_a_spike_is_found_with_its_steps_and_is_over_when_it_came_back() -> None:
    (said,) = found(LossSpike(), spiked(201, 210, 5.0))
    assert (said.severity, said.first_step, said.active) == (Severity.WARNING, 201, False)
    assert 210 <= said.last_step <= 215
    assert said.evidence["highest"] > 5
    assert "and came back" in said.explanation


def test_a_loss_that_does_not_come_back_is_critical() -> None:
    (said,) = found(LossSpike(), spiked(301, 400, 5.0))
    assert (said.severity, said.first_step, said.last_step, said.active) == (Severity.CRITICAL, 301, 400, True)
    assert "has not come back" in said.explanation


def test_half_of_what_was_learnt_has_to_be_lost() -> None:
    flat = [2.0] * 10 + [1.0 + e for e in noise(390, 0.01)]  # a start of 2, a level of 1
    for height, is_found in ((0.4, False), (0.6, True)):
        losses = [x + height * (200 <= i < 210) for i, x in enumerate(flat)]
        assert bool(found(LossSpike(), losses)) is is_found


def test_updates_that_grew_before_stand_in_the_evidence() -> None:
    moved = [1e-3] * 400
    moved[190:200] = [4e-3] * 10
    (said,) = found(LossSpike(), spiked(201, 210, 5.0), moved)
    assert said.evidence["largest update in the 20 steps before, over the usual one"] == pytest.approx(4.0)
    (said,) = found(LossSpike(), spiked(201, 210, 5.0), math.nan)
    assert not any("update" in name for name in said.evidence)


def test_a_loss_that_climbs_back() -> None:
    losses = falling(200) + [0.2 + 0.01 * t + e for t, e in enumerate(noise(200, 0.02))]
    (said,) = found(OscillatingLoss(), losses)
    assert "climbed back to" in said.explanation
    assert said.active
    assert 250 <= said.first_step <= 350


def test_a_loss_that_swings() -> None:
    def swinging(size: float) -> list[float]:
        return [x + size * (1 + math.sin(2 * math.pi * t / 80)) for t, x in enumerate(falling(800, floor=0.5))]

    (said,) = found(OscillatingLoss(), swinging(0.6))
    assert "went up and down" in said.explanation
    assert found(OscillatingLoss(), swinging(0.05)) == []
    dying = [x * math.exp(-t / 100) + e for t, (x, e) in enumerate(zip(swinging(0.6), noise(800, 0.02), strict=True))]
    assert found(OscillatingLoss(), dying) == []


@pytest.mark.parametrize(("moved", "scatter", "is_found"), [(5e-2, 1.0, True), (5e-3, 1.0, False), (5e-2, 0.05, False)])
def test_a_loss_that_bounces_where_it_began(moved: float, scatter: float, is_found: bool) -> None:
    losses = [2.3] * 10 + [2.3 + e for e in noise(190, scatter)]
    assert bool(found(OscillatingLoss(), losses, moved)) is is_found
    assert found(OscillatingLoss(), losses[:149], moved) == []  # a plateau at first, in small data


@pytest.mark.parametrize(("moved", "level", "is_found"), [(8e-3, 3.0, True), (7e-3, 3.0, False), (8e-3, 2.5, False)])
def test_a_loss_that_rises_above_where_it_began_and_stays_there(moved: float, level: float, is_found: bool) -> None:
    losses = [2.3] * 3 + [4.0] * 7 + [level + e for e in noise(190, 0.05)]
    said = found(OscillatingLoss(), losses, moved)
    assert bool(said) is is_found
    assert all("above where it began (2.3)" in one.explanation for one in said)


@pytest.mark.parametrize(
    ("moved", "level", "slope", "is_found"),
    [(1.6e-2, 1.5, 0.0, True), (1.4e-2, 1.5, 0.0, False), (1.6e-2, 1.0, 0.0, False), (1.6e-2, 1.9, 1e-3, False)],
)
def test_a_loss_that_rests_high_at_large_steps(moved: float, level: float, slope: float, is_found: bool) -> None:
    losses = [2.3] * 10 + [level - slope * t + e for t, e in enumerate(noise(390, 0.05))]
    said = found(OscillatingLoss(), losses, moved)
    assert bool(said) is is_found
    assert all("come to rest" in one.explanation for one in said)


def test_a_climb_at_large_steps_is_not_meant() -> None:
    losses = falling(200, floor=0.5) + [1.2 + e for e in noise(200, 0.02)]
    for moved, severity in ((2e-3, Severity.INFO), (1.6e-2, Severity.WARNING)):
        (said,) = found(OscillatingLoss(), losses, moved)
        assert said.severity is severity


def test_a_loss_that_creeps() -> None:
    def creeping(slope: float) -> list[float]:
        return [2.3 - slope * t + e for t, e in enumerate(noise(600, 0.01))]

    assert [one.severity for one in found(SlowConvergence(), creeping(5e-4), 9e-4)] == [Severity.WARNING]
    assert found(SlowConvergence(), creeping(5e-4), 1.1e-3) == []
    assert found(SlowConvergence(), creeping(0.0), 5e-4) == []  # it rests
    assert not any(one.active for one in found(SlowConvergence(), creeping(2e-3), 5e-4))  # it has fallen


@pytest.mark.parametrize("moved", [3.9e-4, 4.1e-4])
def test_a_loss_that_rests_at_small_steps(moved: float) -> None:
    assert bool(found(SlowConvergence(), [2.3 + e for e in noise(300, 0.01)], moved)) is (moved < 4e-4)


def with_rate(rate: Callable[[int], float], loss: float, steps: int = 400, *, alone: bool = True) -> list[Finding]:
    """A run whose learning rate changes; the first losses are 2."""
    sampled = [1, 2, 3, 10, *range(50, steps + 1, 10)]
    losses = {step: 2.0 if step <= 10 else loss for step in range(1, steps + 1)}
    seen = block(OF, noisy(steps, OF), ratios=dict.fromkeys(sampled, [0.01] * 3), losses=losses, moved=0.01)
    rates = torch.tensor([[rate(step)] * 3 for step in sampled], dtype=torch.float64)
    detector = SlowConvergence()
    for part in cut(replace(seen, samples=replace(seen.samples, learning_rates=rates), alone=alone), [7, 50, 1, 90]):
        detector.observe(part)
    return list(detector.findings())


def test_a_learning_rate_that_is_gone_before_anything_was_learnt() -> None:
    (said,) = with_rate(lambda step: 0.1 * 0.9**step, 1.2)
    assert (said.severity, said.active) == (Severity.WARNING, True)
    assert "or the step, has been at a fiftieth of its highest, or less, since step 50" in said.explanation
    assert with_rate(lambda step: 0.1 * 0.9**step, 0.2) != []  # most of the run was for nothing all the same
    assert with_rate(lambda step: 0.1 if step < 60 else 0.0021, 1.2) == []  # a forty-eighth
    assert with_rate(lambda step: 0.1 if step < 60 else 0.0019, 1.2) != []
    assert with_rate(lambda step: 0.1 if step < 190 else 0.001, 1.2) == []  # less than 55 % of the run
    assert with_rate(lambda step: 0.1 * (1 + math.cos(math.pi * step / 400)), 1.2) == []  # a cosine that ends
    assert with_rate(lambda step: 0.0, 1.2) == []  # never was one
    assert with_rate(lambda step: 0.1 * 0.9**step, 1.2, alone=False) != []


def test_a_run_that_hardly_moves() -> None:
    losses = [2.3 - 1e-4 * t + e for t, e in enumerate(noise(300, 0.01))]
    (said,) = found(SlowConvergence(), losses, 2e-5)
    assert (said.severity, said.first_step, said.active) == (Severity.WARNING, 50, True)
    assert said.evidence["average update/weight"] == pytest.approx(2e-5)
    assert found(SlowConvergence(), losses, 1e-3) == []  # at usual steps it rests
    assert found(SlowConvergence(), losses, 1e-10) == []  # UpdateTooSmall speaks
    assert found(SlowConvergence(), losses, 0.0) == []  # there is no gradient
    assert found(SlowConvergence(), losses, math.nan) == []
    assert found(SlowConvergence(), falling(300), 2e-5) == []  # it falls all the same


def test_a_learning_rate_that_is_being_warmed_up_is_no_slow_run() -> None:
    losses = [2.3 + e for e in noise(300, 0.01)]
    assert found(SlowConvergence(), losses, [1e-6 * 1.02**t for t in range(300)]) == []


def test_a_slow_run_that_falls_later_is_over() -> None:
    losses = [2.3 + e for e in noise(150, 0.01)] + falling(250)
    (said,) = found(SlowConvergence(), losses, [1e-5] * 150 + [1e-3] * 250)
    assert (said.severity, said.active) == (Severity.INFO, False)


def test_the_losses_of_a_game_are_not_judged() -> None:
    assert found(LossSpike(), spiked(301, 400, 5.0), alone=False) == []
    assert found(OscillatingLoss(), falling(200) + [0.2 + 0.01 * t for t in range(200)], alone=False) == []
    for moved, is_found in ((1.1e-4, False), (9e-5, True)):
        assert bool(found(SlowConvergence(), [0.7] * 300, moved, alone=False)) is is_found


@pytest.mark.parametrize("kind", [LossSpike, OscillatingLoss, SlowConvergence])
def test_without_a_loss_nothing_is_said(kind: type[AbstractDetector]) -> None:
    detector = kind()
    detector.observe(block(OF, noisy(300, OF), moved=1e-5))
    detector.observe(block(OF, noisy(300, OF), first_step=301, losses=dict.fromkeys(range(301, 601), math.nan)))
    assert detector.findings() == ()


@pytest.mark.parametrize(("after", "is_found"), [([2.0] * 10, False), ([3.0] * 10, True), ([1.0] * 9 + [9.0], True)])
def test_a_first_step_that_leaves_nothing_of_the_weights(after: list[float], is_found: bool) -> None:
    losses = dict(enumerate([2.3, *after, *[1.0] * 39], start=1))
    detector = UpdateTooLarge()
    detector.observe(block(OF, noisy(50, OF), ratios={1: [3.0] * 3, 2: [0.7] * 3, 4: [0.3] * 3}, losses=losses))
    said = detector.findings()
    assert bool(said) is is_found
    if is_found:
        assert (said[0].severity, said[0].first_step, said[0].active) == (Severity.CRITICAL, 1, False)
        assert said[0].evidence["median update/weight"] == 3.0


@pytest.mark.parametrize(("ratio", "is_found"), [(9.9, False), (10.0, True)])
def test_a_first_step_that_is_a_multiple_of_the_weights_is_too_large_whatever_the_loss_says(
    ratio: float, is_found: bool
) -> None:
    losses = dict(enumerate([2.3, *[2.0] * 49], start=1))
    detector = UpdateTooLarge()
    detector.observe(block(OF, noisy(50, OF), ratios={1: [ratio] * 3, 2: [0.7] * 3, 4: [0.3] * 3}, losses=losses))
    assert bool(detector.findings()) is is_found


@pytest.mark.parametrize(
    ("moved", "overflow", "is_found"),
    [
        ([0.01] * 5 + [0.6] * 5, (), True),
        ([0.01] * 5 + [9.0, 0.4, 9.0, 0.1, 0.1], (), True),  # each counts as 1 at most
        ([0.01] * 5 + [0.4] * 5, (), False),
        ([0.6] * 5 + [0.01] * 5, (), False),
        ([0.01] * 5 + [0.6] * 5, (11,), False),  # the loss scaler's
        ([math.nan] * 8 + [0.6, 0.6], (), True),
    ],
)
def test_steps_that_end_in_nan_were_too_large_where_they_were_large(
    moved: list[float], overflow: tuple[int, ...], is_found: bool
) -> None:
    norms = noisy(11, OF)
    norms[10] = math.nan
    detector = UpdateTooLarge()
    detector.observe(block(OF, norms, moved=dict(enumerate(moved, start=1)), overflow=overflow))
    detector.observe(block(OF, noisy(50, OF), first_step=12, moved=0.01))
    said = detector.findings()
    assert bool(said) is is_found
    if is_found:
        assert (said[0].severity, said[0].last_step, said[0].active) == (Severity.CRITICAL, 11, False)
        assert said[0].evidence["median update/weight"] == pytest.approx(0.52 if moved[5] == 9.0 else 0.6)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: LossSpike(z=0.0), "LossSpike needs z > 0"),
        (lambda: LossSpike(patience=11), "1 <= patience <= 10"),
        (lambda: OscillatingLoss(1), "OscillatingLoss needs swings >= 2"),
        (lambda: SlowConvergence(fall=1.0), "SlowConvergence needs ratio > 0 and 0 < fall < 1"),
    ],
)
def test_arguments_out_of_range(make: Callable[[], AbstractDetector], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_harder_task_that_is_being_learnt_is_a_new_level_and_no_loss_that_is_lost() -> None:
    harder = [(0.2 + 3 * math.exp(-0.01 * t)) * (1 + e) for t, e in enumerate(noise(400, 0.05))]
    (said,) = found(LossSpike(), falling(300) + harder)
    assert (said.severity, said.active) == (Severity.INFO, False)
    assert "to a level from which it falls anew" in said.explanation
    for upto in range(300, 700, 50):  # nor is it at any time
        assert all(one.severity is not Severity.CRITICAL for one in found(LossSpike(), (falling(300) + harder)[:upto]))


def test_a_climb_is_info_until_what_was_learnt_is_lost() -> None:
    for height, severity in ((0.8, Severity.INFO), (3.0, Severity.WARNING)):
        losses = falling(200) + [0.2 + height * min(1, t / 100) + e for t, e in enumerate(noise(300, 0.02))]
        (said,) = found(OscillatingLoss(), losses)
        assert said.severity is severity


def test_a_loss_about_zero_says_nothing_of_the_first_step() -> None:
    losses = dict(enumerate([1e-9, *noise(49, 1e-8)], start=1))
    detector = UpdateTooLarge()
    detector.observe(block(OF, noisy(50, OF), ratios={1: [3.0] * 3, 2: [0.1] * 3}, losses=losses))
    assert detector.findings() == ()


def test_losses_of_both_signs_may_climb_back() -> None:
    dip = [-0.5 * math.sin(math.pi * min(1, t / 300)) + e for t, e in enumerate(noise(400, 0.02))]
    for shift, severity in ((0.0, Severity.INFO), (1.0, Severity.WARNING)):
        (said,) = found(OscillatingLoss(), [loss + shift for loss in dip], 2.2e-2)
        assert said.severity is severity


@pytest.mark.parametrize(("late", "is_found"), [(1.9e-4, True), (2.1e-4, False)])
def test_steps_that_fade_at_once_whatever_the_learning_rate_says(late: float, is_found: bool) -> None:
    losses = [2.0] * 10 + [1.2] * 390
    assert bool(found(SlowConvergence(), losses, [1e-2] * 100 + [late] * 300)) is is_found
    assert found(SlowConvergence(), losses, [1e-2] * 150 + [late] * 250) == []
