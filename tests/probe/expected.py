"""What a profile has to say, from the gradients that an unrolled call has.

Shape legend: T = time, B = batch, N = steps of a sequence, S = width of a state, L = lags.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.probe.unrolled import Layer, Unrolled

Rows = list[Tensor]  # for each step of a layer the gradient of its rows


class Expected(NamedTuple):
    """As in :class:`gradguard.probe.Profile`."""

    layer: str
    h: np.ndarray
    c: np.ndarray | None
    gates: dict[str, np.ndarray]
    memory: np.ndarray
    sequences: np.ndarray
    length: float
    is_at_end: bool


class Found(NamedTuple):
    """Gradients of one layer: totals of h, of c and of the sums; what comes from outside at steps and after the last.

    ``squares`` are the squared norms of what comes from outside, of each sequence [N], in the order of its steps.
    """

    h: Rows
    c: Rows
    sums: Rows
    at_steps: list[Rows]
    at_last: Rows
    squares: list[np.ndarray]

    @property
    def ends(self) -> list[int]:
        """The last step of each sequence that anything from outside comes to; -1 for none."""
        return [max(np.flatnonzero(own), default=-1) for own in self.squares]


def expected(call: Unrolled, loss: Tensor) -> list[Expected]:
    """Say what the profiles of a call are."""
    every = [t for layer in call.layers for group in _tensors(layer) for t in group]
    grads = iter(_gradients(loss, every))
    found = [_found(layer, [[next(grads) for _ in group] for group in _tensors(layer)]) for layer in call.layers]
    level = call.layers[-1].name.split("_")[0]
    shares = [_share_before_end(f) for layer, f in zip(call.layers, found, strict=True) if level in layer.name]
    return [_expected(layer, f, max(shares) <= 1e-9) for layer, f in zip(call.layers, found, strict=True)]


def _tensors(layer: Layer) -> list[list[Tensor]]:
    states = range(len(layer.finals))
    return [
        [step.carried[0] for step in layer.steps],
        [step.fresh[1] for step in layer.steps if len(states) > 1],
        [step.sums for step in layer.steps],
        layer.finals,
        *([step.given[i] for step in layer.steps] for i in states),
    ]


def _gradients(loss: Tensor, of: list[Tensor]) -> Rows:
    found = torch.autograd.grad(loss, of, allow_unused=True, retain_graph=True)
    return [torch.zeros_like(t) if grad is None else grad for t, grad in zip(of, found, strict=True)]


def _found(layer: Layer, groups: list[Rows]) -> Found:
    h, c, sums, at_last, *at_steps = groups
    squares = [sum(parts) for parts in zip(*(_squares(layer, grads) for grads in at_steps), strict=True)]
    for b, own in enumerate(squares):
        own[-1] += sum(float(grad[b].square().sum()) for grad in at_last)
    return Found(h, c, sums, at_steps, at_last, squares)


def _squares(layer: Layer, grads: Rows) -> list[np.ndarray]:
    """Of each sequence, the squared norms of its rows in the order of the steps, [N]."""
    found = [np.zeros(n) for n in layer.lengths]
    for step, grad in zip(layer.steps, grads, strict=True):
        for row, b in zip(grad.numpy(), step.who, strict=True):
            found[b][step.number] += (row * row).sum()
    return found


def _by_time(layer: Layer, grads: Rows) -> np.ndarray:
    found = np.zeros(max(layer.lengths))
    for step, grad in zip(layer.steps, grads, strict=True):
        for row, t in zip(grad.numpy(), step.times, strict=True):
            found[t] += (row * row).sum()
    return np.sqrt(found)


def _share_before_end(found: Found) -> float:
    before = sum(own[:end].sum() for own, end in zip(found.squares, found.ends, strict=True) if end >= 0)
    whole = sum(own.sum() for own in found.squares)
    return before / whole if whole else 0.0


def _expected(layer: Layer, found: Found, is_at_end: bool) -> Expected:
    parts = [grad.chunk(len(layer.gates), dim=1) for grad in found.sums]
    sizes = _squares(layer, _from_ends_alone(layer, found))
    memory, sequences = [], []
    for lag in range(max(found.ends) + 1):
        at = [own[end - lag] for own, end in zip(sizes, found.ends, strict=True) if end >= lag]
        memory.append(np.sqrt(sum(at) / len(at)))
        sequences.append(len(at))
    return Expected(
        layer.name,
        _by_time(layer, found.h),
        _by_time(layer, found.c) if found.c else None,
        {name: _by_time(layer, [part[i] for part in parts]) for i, name in enumerate(layer.gates)},
        np.array(memory),
        np.array(sequences),
        float(np.mean([end + 1 for end in found.ends])),
        is_at_end,
    )


def _from_ends_alone(layer: Layer, found: Found) -> Rows:
    """Gradients of the carrier, where of what comes from outside only that at the ends is left."""
    objective = sum((last * grad).sum() for last, grad in zip(layer.finals, found.at_last, strict=True))
    for i, grads in enumerate(found.at_steps):
        for step, grad in zip(layer.steps, grads, strict=True):
            is_end = torch.tensor([[float(step.number == found.ends[b])] for b in step.who], dtype=grad.dtype)
            objective = objective + (step.given[i] * grad * is_end).sum()
    h, c, *_ = _tensors(layer)
    return _gradients(objective, c or h)
