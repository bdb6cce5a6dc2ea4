"""Loops over cells that watch their states, for the tests of ``watch_state``. Shape legend: T, B, IN, H."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.probe import watch_state

T, B, IN, H = 7, 3, 4, 5
F64 = torch.float64


def halving(steps: Sequence[int], **kwargs: Any) -> Tensor:
    """Halve a state at each step, and watch it."""
    h = torch.ones(2, 1, dtype=F64, requires_grad=True)
    for t in steps:
        h = 0.5 * h
        watch_state(h, t, **kwargs)
    return h


def run(cell: nn.Module, x_TBI: Tensor, *, carries_c: bool = True, watches: bool = True) -> list[tuple[Tensor, ...]]:
    h = x_TBI.new_zeros(x_TBI.shape[1], H)
    states: Any = (h, h) if carries_c else h
    passed = []
    for t, x in enumerate(x_TBI):
        states = cell(x, states)
        if watches:
            watch_state(states, t)
        passed.append(tuple(states) if carries_c else (states,))
    return passed
