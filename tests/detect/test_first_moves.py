"""The first fifty steps: how far they moved the weights, and whether the loss shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from gradguard.detect import Role, Severity, UpdateTooLarge
from gradguard.detect.first_moves import STEPS, FirstMoves
from tests.detect.blocks import block, cut, layout, noisy

OF = layout(3)
FALLS = [2.3 * 0.95**t for t in range(60)]
STAYS = [2.3] * 60
RISES = [2.3, *[2.45] * 59]
JUMPS = [2.3, 9.0, 9.0, *FALLS[3:]]


def too_large(
    moved: Sequence[float] | float, losses: Sequence[float] | None, *, alone: bool = True, steps: int = 60
) -> bool:
    moves = FirstMoves()
    each = range(1, steps + 1)
    distance = dict(zip(each, moved, strict=False)) if isinstance(moved, Sequence) else moved
    known = None if losses is None else dict(zip(each, losses, strict=False))
    whole = block(OF, noisy(steps, OF), losses=known, moved=distance)
    for part in cut(replace(whole, alone=alone), [7, 30]):
        moves.observe(part)
    return moves.are_too_large


@pytest.mark.parametrize(
    ("moved", "losses", "alone", "is_found"),
    [
        (0.06, RISES, True, True),
        (0.04, RISES, True, False),
        (0.06, STAYS, True, False),  # no harm is seen: weights grow from next to nothing
        (0.06, [2.3, 2.45, 2.45, *FALLS[3:]], True, False),
        (0.06, FALLS, True, False),  # it learns all the same
        (0.06, JUMPS, True, True),
        (0.06, [2.3, 9.0, *FALLS[2:]], True, False),  # once
        (0.06, [x - 2 for x in FALLS], True, False),  # passes zero
        (0.06, None, True, False),
        (0.11, None, True, True),
        (0.06, RISES, False, False),  # one of several: its loss says little
        (0.11, FALLS, False, True),
        (math.nan, RISES, True, False),
        ([1000.0, 1000.0, *[1e-3] * 58], RISES, True, False),  # weights that grow from nothing
        ([0.0, *[1.0] * 4, *[1e-5] * 55], RISES, True, True),  # a burst
    ],
)
def test_what_is_too_far(moved: list[float] | float, losses: list[float] | None, alone: bool, is_found: bool) -> None:
    assert too_large(moved, losses, alone=alone) is is_found


@pytest.mark.parametrize(
    ("moved", "losses", "found"),
    [
        (0.06, STAYS, True),
        (0.06, [0.69 * loss if t else loss for t, loss in enumerate(STAYS)], False),
        (0.04, STAYS, False),
        ([0.2] * 20 + [0.03] * 40, STAYS, False),  # weights that grow from little
    ],
)
def test_steps_that_bring_nothing(moved: list[float] | float, losses: list[float], found: bool) -> None:
    distance = dict(enumerate(moved, start=1)) if isinstance(moved, list) else moved
    seen = block(OF, noisy(60, OF), losses=dict(enumerate(losses, start=1)), moved=distance, ratios={1: [0.06] * 3})
    for zero in (False, True):
        norms = torch.ones_like(seen.samples.weight_norms)
        norms[0, 0] = 0.0 if zero else 1.0  # a head that begins at zero grows from nothing
        detector = UpdateTooLarge()
        detector.observe(replace(seen, samples=replace(seen.samples, weight_norms=norms)))
        assert bool(detector.findings()) is (found and not zero)
    detector = UpdateTooLarge()
    detector.observe(replace(seen, layout=replace(OF, roles=(Role.OTHER,) * 3)))
    assert detector.findings() == ()  # tables


def test_nothing_is_said_before_all_were_made() -> None:
    assert not too_large(0.5, RISES, steps=STEPS - 1)
    assert too_large(0.5, RISES, steps=STEPS)


def test_later_steps_do_not_count() -> None:
    assert not too_large([1e-3] * STEPS + [1.0] * 200, [2.3, *[2.45] * 249], steps=250)


def test_it_is_a_warning_that_goes_on_from_its_state() -> None:
    whole = block(OF, noisy(60, OF), losses=dict(zip(range(1, 61), RISES, strict=True)), moved=0.06)
    first, second = UpdateTooLarge(), UpdateTooLarge()
    *parts, last = cut(whole, [20])
    for part in parts:
        first.observe(part)
    assert first.findings() == ()
    second.load_state_dict(first.state_dict())
    second.observe(last)
    (said,) = second.findings()
    assert (said.severity, said.first_step, said.last_step, said.active) == (Severity.WARNING, 1, STEPS, False)
    assert said.evidence["median update/weight"] == pytest.approx(0.06)
