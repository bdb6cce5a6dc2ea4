"""A hundred steps on end: how far they moved the weights, and whether the loss fell by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gradguard.detect import Finding, Role, Severity, UpdateTooLarge
from tests.detect.blocks import block, cut, layout, noisy

OF = layout(3)
STAYS = [1.0] * 300
FALLS = [0.999**t for t in range(300)]  # by 5 % in fifty steps


def found(
    moved: Sequence[float] | float, losses: Sequence[float] | None, *, alone: bool = True, roles: Role = Role.WEIGHT
) -> tuple[Finding, ...]:
    steps = range(1, 301)
    distance = dict(zip(steps, moved, strict=True)) if isinstance(moved, Sequence) else moved
    known = None if losses is None else dict(zip(steps, losses, strict=True))
    of = replace(OF, roles=(roles,) * 3)
    detector = UpdateTooLarge()
    for part in cut(replace(block(of, noisy(300, of), losses=known, moved=distance), alone=alone), [7, 60, 33]):
        detector.observe(part)
    return detector.findings()


@pytest.mark.parametrize(
    ("moved", "losses", "alone", "is_found"),
    [
        (0.041, STAYS, True, True),
        (0.039, STAYS, True, False),
        (0.041, FALLS, True, False),  # it gets somewhere
        (0.049, None, True, False),
        (0.049, STAYS, False, False),  # one of several: its loss says little
        ([*[0.04] * 60, *[0.02] * 240], STAYS, True, False),  # weights that grow at first
        ([*[0.02] * 120, *[9.0] * 3, *[0.02] * 177], STAYS, True, True),  # each counts as 1 at most
    ],
)
def test_what_is_too_far(moved: list[float] | float, losses: list[float] | None, alone: bool, is_found: bool) -> None:
    assert bool(found(moved, losses, alone=alone)) is is_found


def test_without_a_loss_that_says_something_the_limit_is_higher() -> None:
    later = [*[0.01] * 60, *[0.051] * 240]  # the first fifty have a rule of their own
    assert found(later, None)
    assert found(later, FALLS, alone=False)


def test_it_is_a_warning_as_long_as_it_lasts_and_tables_may_do_so() -> None:
    moved = [*[0.01] * 100, *[0.06] * 100, *[0.01] * 100]
    (said,) = found(moved, STAYS)
    assert (said.severity, said.first_step, said.last_step, said.active) == (Severity.WARNING, 101, 200, False)
    assert said.evidence["median update/weight"] == pytest.approx(0.06)
    assert "A hundred steps on end changed the weights by 0.06 of their norm each, and got nowhere" in said.explanation
    assert found(moved, STAYS, roles=Role.OTHER) == ()
