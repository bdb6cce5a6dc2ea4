"""What sampled steps showed of the layers, as tables for the history and the run record.

Shape legend: R = 1 row, the sampled step; K = columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from gradguard.detect import Activations, Units
from gradguard.record import Points, rows


def activation_table(sample: Activations) -> tuple[str, tuple[str, ...], Points]:
    """Give the table of a sampled step: group, columns, points."""
    values = numbers_of(sample)
    points = rows(torch.tensor([sample.step]), torch.tensor([list(values.values())], dtype=torch.float64))
    return "activation", tuple(values), points


def numbers_of(sample: Activations) -> dict[str, float]:
    """Give the numbers of a sampled step by layer, of a second activation behind it under its name, too; none NaN."""
    found: dict[str, float] = {}
    for one in sample.signals:
        layer = one.layer or "_root_"
        found |= {f"{layer}/{name}": getattr(one, name) for name in ("rms", "grad_rms", "distinct", "varies")}
    for layer, of in _places(sample):
        found |= {f"{layer}/silent": _share(of.silent), f"{layer}/saturated": _share(of.saturated)}
        found[f"{layer}/active"] = of.active
    return {name: value for name, value in found.items() if not math.isnan(value)}


def scalars_of(sample: Activations) -> dict[str, float]:
    """Give what a dashboard shows of a sampled step: sizes, and silent or saturated units; nothing that is NaN."""
    found: dict[str, float] = {}
    for one in sample.signals:
        layer = one.layer or "_root_"
        found |= {f"{layer}/rms": one.rms, f"{layer}/grad_rms": one.grad_rms}
    for layer, of in _places(sample):
        name = "saturated" if of.is_bounded else "silent"
        found[f"{layer}/{name}"] = _share(getattr(of, name))
    return {f"activation/{name}": value for name, value in found.items() if not math.isnan(value)}


def _places(sample: Activations) -> Iterator[tuple[str, Units]]:
    taken: set[str] = set()
    for of in sample.units:
        layer = of.layer or "_root_"
        place = f"{layer}/{of.activation}" if layer in taken else layer
        taken.add(layer)
        yield place, of


def _share(units: Tensor) -> float:
    return float(units.double().mean())
