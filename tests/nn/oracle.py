"""Loops over recurrent cells in NumPy: one sequence at a time, one step at a time, no torch and no autograd.

Everything is analytic in every entry, or piecewise so, so that a derivative is the imaginary part of a complex step:
exact to the last digits, and found without a rule of differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tests.nn.oracle_cells import CELLS, Params, States

TINY = 1e-30


class Drawn(NamedTuple):
    """What the options of the family draw or set for one sequence in one layer and direction."""

    drop_h: np.ndarray | float = 1.0  # by which the h that enters the products is multiplied, [P]
    zones: tuple[np.ndarray | float, ...] = (0.0, 0.0)  # of each state: which share stays, [T, S]


class Between(NamedTuple):
    """What stands between layers."""

    factors: np.ndarray | float = 1.0  # of a layer's input
    shortcut: str | None = None  # the weight from its input to its output; "" for the identity
    after: np.ndarray | float = 1.0  # factors of its output


def step(
    cell: str, x: np.ndarray, states: States, params: Params, drawn: Drawn, zones: Sequence[np.ndarray | float]
) -> States:
    """One step, and what zoneout keeps."""
    new = CELLS[cell](x, states[0] * drawn.drop_h, states, params)
    return tuple(zone * old + (1 - zone) * fresh for fresh, old, zone in zip(new, states, zones, strict=False))


def zones_at(drawn: Drawn, t: int) -> list[np.ndarray | float]:
    """Of each state at a step, by its place in the sequence."""
    return [zone[t] if isinstance(zone, np.ndarray) else zone for zone in drawn.zones]


def run(
    cell: str,
    x: np.ndarray,
    states: Sequence[States],
    layers: Sequence[Params],
    directions: int,
    drawn: Sequence[Drawn] | None = None,
    between: Sequence[Between] | None = None,
    shortcuts: Params | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Run one sequence [T, I] through all layers: the output, and each state after each layer's last step."""
    finals = []
    drawn = drawn or [Drawn()] * len(layers)
    between = between or [Between()] * (len(layers) // directions)
    for first in range(0, len(layers), directions):
        outputs = []
        gap = between[first // directions]
        for k in range(first, first + directions):
            now, seen, times = states[k], [], range(len(x))
            for t in reversed(times) if k > first else times:
                now = step(cell, x[t] * gap.factors, now, layers[k], drawn[k], zones_at(drawn[k], t))
                seen.append(now[0])
            outputs.append(np.array(seen[::-1] if k > first else seen))
            finals.append(now)
        out = np.concatenate(outputs, axis=1) * gap.after
        if gap.shortcut is not None:
            out = out + (x @ shortcuts[gap.shortcut].T if gap.shortcut and shortcuts else x)
        x = out
    return x, [np.array(each) for each in zip(*finals, strict=True)]


def derivatives(
    loss: Callable[[dict[str, np.ndarray]], complex], at: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The gradient of a loss with regard to every entry of every array, by complex steps."""
    point = {name: value.astype(np.complex128) for name, value in at.items()}
    found = {name: np.zeros(value.shape) for name, value in at.items()}
    for name, value in point.items():
        for index in np.ndindex(value.shape):
            value[index] += TINY * 1j
            found[name][index] = loss(point).imag / TINY
            value[index] -= TINY * 1j
    return found


def clamped_gradients(
    cell: str, x: np.ndarray, states: States, params: Params, of_outputs: np.ndarray, bound: float
) -> dict[str, np.ndarray]:
    """Back through time by hand, the gradient of h clamped on its way from each step to the one before."""
    n, names = len(states), [f"state{i}" for i in range(len(states))]
    history = [states]
    for x_t in x:
        history.append(CELLS[cell](x_t, history[-1][0], history[-1], params))
    d = [np.zeros(s.shape) for s in states]
    found = {name: np.zeros(value.shape) for name, value in params.items()} | {"x": np.zeros(x.shape)}
    for t in reversed(range(len(x))):
        d[0] = d[0] + of_outputs[t]

        def loss(p: dict[str, np.ndarray], d: Sequence[np.ndarray] = tuple(d)) -> complex:
            before = tuple(p[name] for name in names)
            new = CELLS[cell](p["x"], before[0], before, p)
            return sum((a * b).sum() for a, b in zip(d, new, strict=True))

        at = dict(params) | {"x": x[t]} | dict(zip(names, history[t], strict=True))
        slopes = derivatives(loss, at)
        for name in params:
            found[name] += slopes[name]
        found["x"][t] = slopes["x"]
        d = [slopes["state0"].clip(-bound, bound), *(slopes[name] for name in names[1:])]
    return found | {f"state{i}": d[i] for i in range(n)}


def clamped_gradients_of_a_stack(
    cell: str,
    x: np.ndarray,
    states: Sequence[States],
    layers: Sequence[Params],
    directions: int,
    of_output: np.ndarray,
    bound: float,
) -> tuple[np.ndarray, list[dict[str, np.ndarray]]]:
    """The same through all layers, from the last one down: gradients of x, and of each layer and direction."""
    inputs = [x]
    for first in range(0, len(layers), directions):
        group = slice(first, first + directions)
        inputs.append(run(cell, inputs[-1], states[group], layers[group], directions)[0])
    found: list[dict[str, np.ndarray]] = [{} for _ in layers]
    for first in reversed(range(0, len(layers), directions)):
        into, below = inputs[first // directions], np.zeros(inputs[first // directions].shape)
        for k, of_own in enumerate(np.split(of_output, directions, axis=1), first):
            turn = slice(None, None, -1 if k > first else 1)
            each = clamped_gradients(cell, into[turn], states[k], layers[k], of_own[turn], bound)
            below += each.pop("x")[turn]
            found[k] = each
        of_output = below
    return of_output, found
