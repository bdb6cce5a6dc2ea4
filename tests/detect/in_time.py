"""Profiles made by hand: what a sampled step showed of a recurrent layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradguard.detect import GateStatistics, InTime, Profile
from gradguard.functional import decay


def profile(
    memory: Tensor | float,
    *,
    layer: str = "rnn.l0",
    length: int = 200,
    at_end: bool = True,
    gates: Sequence[GateStatistics] = (),
    keeps: str | None = "f",
    cells: float = 0.0,
) -> Profile:
    """``memory`` as a number is what is left from one step to the next."""
    sizes = memory if isinstance(memory, Tensor) else memory ** torch.arange(length, dtype=torch.float64)
    counts = torch.ones(len(sizes), dtype=torch.float64)
    changing = decay(sizes, counts)
    return Profile(
        layer, sizes.flip(0), None, {}, sizes, counts, changing, length, at_end, None, tuple(gates), keeps, cells
    )


def gate(letter: str, mean: float, *, shut: float = 0.0, open_: float = 0.0, units: int = 8) -> GateStatistics:
    """``shut`` and ``open_`` are shares of the units that are so at all steps."""
    each = torch.arange(units) / units
    nothing = torch.zeros(units, dtype=torch.float64)
    shut_units, open_units = (each < shut).double(), (each >= 1 - open_).double()
    return GateStatistics(letter, nothing + mean, nothing, shut_units, open_units, torch.full((20,), 0.05))


def sample(step: int, *profiles: Profile, lag: int | None = None) -> InTime:
    """One module that is called as its layers are."""
    return InTime(step, lag, {one.layer.rpartition(".")[0]: (one,) for one in profiles})
