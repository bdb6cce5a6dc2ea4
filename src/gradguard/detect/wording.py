"""How findings and profiles put things: places, numbers, and what is left of a gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradguard.detect.in_time import Profile

GROWS = 10  # from here on the growth is told


def listed(where: Sequence[str], most: int = 4) -> str:
    """Name the first places, and say how many more there are.

    >>> listed(["fc1", "fc2", "fc3"], most=2), listed([""]), listed([])
    ('fc1, fc2 and 1 more', '(root)', 'the whole model')
    """
    if not where:
        return "the whole model"
    rest = f" and {len(where) - most} more" if len(where) > most else ""
    return ", ".join(name or "(root)" for name in where[:most]) + rest


def number(value: object, most: int = 6) -> str:
    """Write a number with three digits, of a long table the first and the last entries, and all else as it is.

    >>> number(0.123456), number({"": 1.0}), number("0.1 to 0.9")
    ('0.123', '{(root): 1}', '0.1 to 0.9')
    """
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        items = list(value.items())
        shown = items if len(items) <= most else [*items[: most // 2], ("...", "..."), *items[-(most // 2) :]]
        return "{" + ", ".join("..." if k == "..." else f"{k or '(root)'}: {number(v)}" for k, v in shown) + "}"
    return str(value)


def cell(value: object, most: int = 6) -> str:
    """Write evidence for a cell of a table: as :func:`number`, a table of numbers without the braces."""
    text = number(value, most)
    return text[1:-1] if isinstance(value, Mapping) else text


def left(profile: Profile) -> str:
    """Say in a few words what is left of the gradient on its way back through time."""
    if math.isnan(profile.horizon):
        return "no gradient"
    if profile.decay.growth > GROWS:
        return f"grows {profile.decay.growth:.3g}-fold over {profile.length:.0f} steps"
    if math.isinf(profile.horizon):
        return f"more than 1 % left over all {profile.length:.0f} steps"
    return f"1 % left after {profile.horizon:.3g} of {profile.length:.0f} steps"
