"""The gates of every cell at one step in NumPy, row by row, as its paper writes them.

Shape legend: B = batch, I = input, H = hidden, P = width of h, G = gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tests.nn.oracle_cells import norm, rms, sigmoid


class Row(NamedTuple):
    """What a step of one sequence is computed from: x [I], the h that enters the products [P], c before and after."""

    x: np.ndarray
    h: np.ndarray
    c: np.ndarray | None
    c_new: np.ndarray | None


Params = Mapping[str, np.ndarray]
Normed = Callable[[np.ndarray, np.ndarray], np.ndarray]  # of what x or h gives, and the gain


def summed(p: Params, at: Row, normed: Normed | None = None) -> np.ndarray:
    of_x, of_h = p["weight_ih"] @ at.x, p["weight_hh"] @ at.h if p["weight_hh"].ndim > 1 else p["weight_hh"] * at.h
    if normed is not None:
        of_x, of_h = normed(of_x, p["gain_ih"]), normed(of_h, p["gain_hh"])
    return of_x + of_h + p.get("bias_ih", 0.0) + p.get("bias_hh", 0.0)


def lstm(p: Params, at: Row, normed: Normed | None = None, peepholes: bool = False) -> list[np.ndarray]:
    i, f, g, o = np.split(summed(p, at, normed), 4)
    if peepholes:
        p_i, p_f, p_o = np.split(p["weight_c"], 3)
        i, f, o = i + p_i * at.c, f + p_f * at.c, o + p_o * at.c_new
    return [sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)]


def in_groups(z: np.ndarray, gain: np.ndarray, groups: int) -> np.ndarray:
    parts = zip(np.split(z, groups), np.split(gain, groups), strict=True)
    return np.concatenate([norm(part, own) for part, own in parts])


def coupled_lstm(p: Params, at: Row) -> list[np.ndarray]:
    f, g, o = np.split(summed(p, at), 3)
    return [sigmoid(f), np.tanh(g), sigmoid(o)]


def janet(p: Params, at: Row) -> list[np.ndarray]:
    f, g = np.split(summed(p, at), 2)
    return [sigmoid(f), np.tanh(g)]


def gru(p: Params, at: Row, normed: Normed | None = None) -> list[np.ndarray]:
    two, of_x, of_h = 2 * len(at.h), p["weight_ih"] @ at.x, p["weight_hh"] @ at.h
    if normed is not None:
        of_x = np.concatenate([normed(of_x[:two], p["gain_ih"][:two]), normed(of_x[two:], p["gain_ih"][two:])])
        of_h = np.concatenate([normed(of_h[:two], p["gain_hh"][:two]), normed(of_h[two:], p["gain_hh"][two:])])
    x_r, x_z, x_n = np.split(of_x + p.get("bias_ih", 0.0), 3)
    h_r, h_z, h_n = np.split(of_h + p.get("bias_hh", 0.0), 3)
    r = sigmoid(x_r + h_r)
    return [r, sigmoid(x_z + h_z), np.tanh(x_n + r * h_n)]


def reset_before(
    p: Params, at: Row, of_x: Callable[[Params, np.ndarray], list[np.ndarray]], of_z: Callable[..., np.ndarray] | None
) -> list[np.ndarray]:
    x_r, x_z, x_n = of_x(p, at.x)
    b_r, b_z, b_n = np.split(p.get("bias_ih", np.zeros(3 * len(at.h))), 3)
    u_r, *u_z, u_n = np.split(p["weight_hh"], len(p["weight_hh"]) // len(at.h))
    r, z = sigmoid(x_r + u_r @ at.h + b_r), x_z + b_z
    if of_z is not None:
        z = z + u_z[0] @ of_z(at.h)
    return [r, sigmoid(z), np.tanh(x_n + u_n @ (r * at.h) + b_n)]


def alone(p: Params, x: np.ndarray) -> np.ndarray:
    return p["weight_in"] @ x if "weight_in" in p else x


def thirds(p: Params, x: np.ndarray) -> list[np.ndarray]:
    return np.split(p["weight_ih"] @ x, 3)


GATES: dict[str, Callable[..., list[np.ndarray]]] = {
    "lstm": lstm,
    "layer_norm_lstm": lstm,
    "normalized_cell_lstm": lstm,
    "rms_norm_lstm": lstm,
    "group_norm_lstm": lstm,
    "peephole_lstm": partial(lstm, peepholes=True),
    "coupled_lstm": coupled_lstm,
    "janet": janet,
    "rnn": lambda p, at: [np.tanh(summed(p, at))],
    "ind_rnn": lambda p, at: [np.tanh(summed(p, at))],
    "gru": gru,
    "layer_norm_gru": gru,
    "original_gru": partial(reset_before, of_x=thirds, of_z=lambda h: h),
    "mut1": partial(
        reset_before, of_x=lambda p, x: [*np.split(p["weight_ih"] @ x, 2), np.tanh(alone(p, x))], of_z=None
    ),
    "mut2": partial(reset_before, of_x=lambda p, x: [alone(p, x), *np.split(p["weight_ih"] @ x, 2)], of_z=lambda h: h),
    "mut3": partial(reset_before, of_x=thirds, of_z=np.tanh),
}


def opened(cell: str, settings: Any, p: Params, rows: list[Row], number: int) -> np.ndarray:
    """The gates of all rows of a step, [B, G, H]."""
    if cell == "batch_norm_lstm":
        return np.array(batch_normed(p, rows, number))
    normed: dict[str, Any] = {}
    if cell == "group_norm_lstm":
        normed = {"normed": partial(in_groups, groups=settings.num_groups)}
    elif hasattr(settings, "eps"):
        normed = {"normed": partial(rms if cell.startswith("rms") else norm, eps=settings.eps)}
    return np.array([GATES[cell](p, at, **normed) for at in rows])


def batch_normed(p: Params, rows: list[Row], number: int) -> list[list[np.ndarray]]:
    """With the statistics of the step's rows, or with given ones."""
    sums = p.get("bias_ih", 0.0) + p.get("bias_hh", 0.0)
    for short, values in (("ih", [at.x for at in rows]), ("hh", [at.h for at in rows])):
        z = np.array(values) @ p[f"weight_{short}"].T
        mean, var = z.mean(0), z.var(0)
        if f"mean_{short}" in p:
            mean, var = p[f"mean_{short}"][number], p[f"var_{short}"][number]
        sums = sums + p[f"gain_{short}"] * (z - mean) / np.sqrt(var + 1e-5)
    parts = (np.split(row, 4) for row in sums)
    return [[sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)] for i, f, g, o in parts]
