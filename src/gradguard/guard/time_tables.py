"""What sampled steps showed of recurrent modules, as tables for the history and the run record.

Shape legend: R = 1 row, the sampled step; K = columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gradguard.detect import InTime, Profile
from gradguard.record import Points, rows

GROWS = 1.15  # by which the lags grow that are kept: 0, 1, 2 ... and about 17 for each power of ten
SUMMARY = ("horizon", "length", "rate", "fit", "growth", "saturated_cells")


def lags(length: int) -> list[int]:
    """Give the lags that are kept of a profile: alike for all steps and lengths, so that columns line up.

    >>> lags(12)
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11]
    """
    found, lag = [0], 1.0
    while lag < length:
        if round(lag) > found[-1] and round(lag) < length:
            found.append(round(lag))
        lag *= GROWS
    return found


def time_tables(sample: InTime) -> Iterator[tuple[str, tuple[str, ...], Points]]:
    """Give the tables of a sampled step: group, columns, points."""
    step = torch.tensor([sample.step])
    for profile in (one for profiles in sample.modules.values() for one in profiles):
        yield f"through_time/{profile.layer}", SUMMARY, rows(step, _row(summary(profile)))
        if len(profile.memory):  # a gradient came that is neither 0 nor NaN
            kept = lags(len(profile.memory))
            yield f"memory/{profile.layer}", tuple(map(str, kept)), rows(step, profile.memory[kept].unsqueeze(0))
        for gate in profile.gates:
            names = "mean", "spread", "shut", "open", *(f"bin_{k}" for k in range(len(gate.histogram)))
            means = [float(of.mean()) for of in (gate.mean, gate.spread, gate.shut, gate.open)]
            yield f"gates/{profile.layer}/{gate.gate}", names, rows(step, _row([*means, *gate.histogram.tolist()]))


def scalars_of(sample: InTime) -> dict[str, float]:
    """Give what a dashboard shows of a sampled step; numbers that are not there are left out."""
    found: dict[str, float] = {}
    for group, names, points in time_tables(sample):
        if not group.startswith("memory/"):
            each = zip(names, points.last[0].tolist(), strict=True)
            found |= {f"{group}/{name}": value for name, value in each if not math.isnan(value) and "bin_" not in name}
    return found


def summary(profile: Profile) -> list[float]:
    """Give the numbers of a profile, in the order of ``SUMMARY``; a horizon beyond the sequence is its length."""
    rate, fit, horizon, growth = profile.decay
    return [min(horizon, profile.length), profile.length, rate, fit, growth, profile.saturated_cells]


def _row(values: list[float]) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)
