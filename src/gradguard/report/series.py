"""One series as the page draws it: few enough points, no extreme lost.

Shape legend: P = points.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gradguard.record import Points

MOST = 2000  # points of a line, and marks of a kind
ROUNDING = 1e-6  # by which a coefficient differs from 1 where nothing was clipped, and norms were taken anew
DIGITS = 6  # significant ones: more than a screen has pixels


def thinned(points: Points, most: int = MOST) -> Points:
    """Merge neighbouring points until there are ``most`` at the most: their last value, least and largest are kept.

    What is NaN is left out of the least and the largest.

    Args:
        points: of a history.
        most: how many, >= 1.

    Host sync: none. Mutates: nothing.
    """
    count = len(points.steps)
    width = -(-count // most)
    if width <= 1:
        return points
    ends = torch.arange(width - 1, count + width - 1, width, device="cpu").clamp(max=count - 1)
    low, high = (_extremes(field, width, sign) for field, sign in ((points.low, 1.0), (points.high, -1.0)))
    return Points(points.steps[ends], points.last[ends].double(), low, high)


def _extremes(values: Tensor, width: int, sign: float) -> Tensor:
    """Give the least of each ``width`` values times a sign, NaN left out where there is anything else."""
    known = torch.where(values.isnan(), torch.inf, sign * values.double())
    padded = torch.nn.functional.pad(known, (0, -len(known) % width), value=torch.inf).view(-1, width)
    nothing = torch.nn.functional.pad(values.isnan(), (0, -len(values) % width), value=True).view(-1, width).all(1)
    return torch.where(nothing, torch.nan, sign * padded.amin(1))


def series_data(points: Points | None, most: int = MOST) -> dict[str, Any] | None:
    """Give a series for the page: steps, values, extremes where they differ, and the steps of what is not finite."""
    if points is None or not len(points.steps):
        return None
    finite = points.last.isfinite() & (points.low.isfinite() | points.low.isnan()) & ~points.high.isinf()
    bad = steps_where(points, ~finite, most)
    points = thinned(points, most)
    data: dict[str, Any] = {"x": points.steps.tolist(), "y": numbers(points.last)}
    if not all(torch.allclose(field, points.last, rtol=0, atol=0, equal_nan=True) for field in points[2:]):
        data |= {"low": numbers(points.low), "high": numbers(points.high)}
    if bad:
        data["bad"] = bad
    return data


def steps_where(points: Points | None, condition: Tensor | None = None, most: int = MOST) -> list[int]:
    """Give the steps of a series at which something holds, evenly spaced ones where they are too many."""
    if points is None:
        return []
    steps = points.steps if condition is None else points.steps[condition]
    return steps[:: max(1, -(-len(steps) // most))].tolist()


def was_changed(coefficient: Points) -> Tensor:
    """Say at which points a clipper made the gradients smaller, or larger, bool [P]."""
    return (coefficient.low < 1 - ROUNDING) | (coefficient.high > 1 + ROUNDING)


def numbers(values: Tensor) -> list[float | None]:
    """Give numbers with six digits that count; None for what is not finite."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in values.tolist()]


def some_of(history: Mapping[str, Points], keys: Mapping[str, str]) -> dict[str, Any]:
    """Give those of some series that a history has, under other names."""
    found = {name: series_data(history.get(key)) for name, key in keys.items()}
    return {name: data for name, data in found.items() if data is not None}
