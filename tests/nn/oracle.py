"""LSTMs as their papers write them, in NumPy: one sequence at a time, one step at a time, no torch and no autograd.

Everything is analytic in every entry, so that a derivative is the imaginary part of a complex step: exact to the last
digits, and found without a rule of differentiation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

Params = Mapping[str, np.ndarray]  # of one layer in one direction
Pair = tuple[np.ndarray, np.ndarray]
TINY = 1e-30


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray | float = 0.0, eps: float = 1e-5) -> np.ndarray:
    centred = x - x.sum() / x.size
    return gain * centred / np.sqrt((centred * centred).sum() / x.size + eps) + shift


def bias(p: Params) -> np.ndarray | float:
    return p["bias_ih"] + p["bias_hh"] if "bias_ih" in p else 0.0


def projected(m: np.ndarray, p: Params) -> np.ndarray:
    return p["weight_hr"] @ m if "weight_hr" in p else m


def lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray, p: Params) -> Pair:
    i, f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p), 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(c), p), c


def normed_gates(x: np.ndarray, h: np.ndarray, p: Params) -> list[np.ndarray]:
    return np.split(norm(p["weight_ih"] @ x, p["gain_ih"]) + norm(p["weight_hh"] @ h, p["gain_hh"]) + bias(p), 4)


def layer_norm_lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray, p: Params) -> Pair:
    """Ba et al. 2016, equations 20 to 22."""
    i, f, g, o = normed_gates(x, h, p)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(norm(c, p["gain_c"], p.get("bias_c", 0.0))), p), c


def normalized_cell_lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray, p: Params) -> Pair:
    i, f, g, o = normed_gates(x, h, p)
    c = norm(sigmoid(f) * c + sigmoid(i) * np.tanh(g), p["gain_c"], p.get("bias_c", 0.0))
    return projected(sigmoid(o) * np.tanh(c), p), c


CELLS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray, Params], Pair]] = {
    "LSTM": lstm,
    "LayerNormLSTM": layer_norm_lstm,
    "NormalizedCellLSTM": normalized_cell_lstm,
}


def run(
    cell: str, x: np.ndarray, states: Sequence[Pair], layers: Sequence[Params], directions: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run one sequence [T, I] through all layers: output, h and c after the last step of each layer and direction."""
    finals = []
    for first in range(0, len(layers), directions):
        outputs = []
        for direction in range(directions):
            h, c = states[first + direction]
            seen = []
            for x_t in x[::-1] if direction else x:
                h, c = CELLS[cell](x_t, h, c, layers[first + direction])
                seen.append(h)
            outputs.append(np.array(seen[::-1] if direction else seen))
            finals.append((h, c))
        x = np.concatenate(outputs, axis=1)
    return x, np.array([h for h, _ in finals]), np.array([c for _, c in finals])


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
