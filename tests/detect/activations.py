"""What sampled steps show of the layers, made by hand."""

from __future__ import annotations

from dataclasses import replace

import torch

from gradguard.detect import Activations, Signal, Units


def units(
    silent: float = 0.0,
    saturated: float = 0.0,
    *,
    layer: str = "layer0",
    activation: str = "relu",
    active: float = 0.5,
    entries: int = 64,
    of: int = 100,
) -> Units:
    """A layer of which a share of the units is silent, and another one saturated: always the first ones."""
    number = torch.arange(of)
    return Units(layer, activation, number < silent * of, number < saturated * of, active, entries)


def signals(
    factor: float = 1.0, back: float = 1.0, *, distinct: float = 0.9, varies: float = 0.8, layers: int = 6
) -> list[Signal]:
    """Layers whose output grows by ``factor`` from one to the next, and whose gradient by ``back`` to that before."""
    return [Signal(f"layer{i}", factor**i, 0.01 * back ** (layers - 1 - i), distinct, varies) for i in range(layers)]


def sample(step: int, *of: Units, signals: list[Signal] | None = None) -> Activations:
    """One sampled step; how many entries are active differs a little from one to the next."""
    differing = (replace(one, active=one.active * (1 + 0.01 * (step % 3))) for one in of)
    return Activations(step, tuple(signals or ()), tuple(differing))
