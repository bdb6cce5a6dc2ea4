"""One step of each cell in NumPy, as its paper writes it.

A step takes x, the h that enters the products (the state, or what a mask left of it), the states, and the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

Params = Mapping[str, np.ndarray]  # of one layer in one direction
States = tuple[np.ndarray, ...]


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x.real > 0, x, 0)


def norm(x: np.ndarray, gain: np.ndarray, shift: np.ndarray | float = 0.0, eps: float = 1e-5) -> np.ndarray:
    centred = x - x.sum() / x.size
    return gain * centred / np.sqrt((centred * centred).sum() / x.size + eps) + shift


def bias(p: Params) -> np.ndarray | float:
    return p["bias_ih"] + p["bias_hh"] if "bias_ih" in p else 0.0


def projected(m: np.ndarray, p: Params) -> np.ndarray:
    return p["weight_hr"] @ m if "weight_hr" in p else m


def lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    i, f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p), 4)
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(c), p), c


def normed_gates(x: np.ndarray, h: np.ndarray, p: Params) -> list[np.ndarray]:
    return np.split(norm(p["weight_ih"] @ x, p["gain_ih"]) + norm(p["weight_hh"] @ h, p["gain_hh"]) + bias(p), 4)


def layer_norm_lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Ba et al. 2016, equations 20 to 22."""
    i, f, g, o = normed_gates(x, h, p)
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(norm(c, p["gain_c"], p.get("bias_c", 0.0))), p), c


def normalized_cell_lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    i, f, g, o = normed_gates(x, h, p)
    c = norm(sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g), p["gain_c"], p.get("bias_c", 0.0))
    return projected(sigmoid(o) * np.tanh(c), p), c


def rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    return (np.tanh(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p)),)


def relu_rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    return (relu(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p)),)


def gru(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """torch.nn.GRU's documentation."""
    x_r, x_z, x_n = np.split(p["weight_ih"] @ x + p.get("bias_ih", 0.0), 3)
    h_r, h_z, h_n = np.split(p["weight_hh"] @ h + p.get("bias_hh", 0.0), 3)
    z = sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * states[0],)


CELLS: dict[str, Callable[[np.ndarray, np.ndarray, States, Params], States]] = {
    "LSTM": lstm,
    "LayerNormLSTM": layer_norm_lstm,
    "NormalizedCellLSTM": normalized_cell_lstm,
    "RNN": rnn,
    "RNN, ReLU": relu_rnn,
    "GRU": gru,
}
