"""One step of each cell in NumPy, as its paper writes it.

A step takes x, the h that enters the products (the state, or what a mask left of it), the states, and the parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

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


def peephole_lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Graves 2013, equations 7 to 11."""
    (_, c), (p_i, p_f, p_o) = states, np.split(p["weight_c"], 3)
    i, f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p), 4)
    c_new = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * np.tanh(g)
    return projected(sigmoid(o + p_o * c_new) * np.tanh(c_new), p), c_new


def coupled_lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Greff et al. 2017, CIFG: i = 1 - f."""
    f, g, o = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p), 3)
    c = sigmoid(f) * states[1] + (1 - sigmoid(f)) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(c), p), c


def janet(x: np.ndarray, h: np.ndarray, states: States, p: Params, beta: float = 1.0) -> States:
    """Van der Westhuizen and Lasenby 2018, with the beta of their experiments."""
    s, g = np.split(p["weight_ih"] @ x + p["weight_hh"] @ h + p.get("bias_ih", 0.0), 2)
    return (sigmoid(s) * states[0] + (1 - sigmoid(s - beta)) * np.tanh(g),)


def rms(x: np.ndarray, gain: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    return gain * x / np.sqrt((x * x).sum() / x.size + eps)


def rms_norm_lstm(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Zhang and Sennrich 2019, equation 4, where Ba et al. have their norms."""
    z = rms(p["weight_ih"] @ x, p["gain_ih"]) + rms(p["weight_hh"] @ h, p["gain_hh"]) + bias(p)
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(rms(c, p["gain_c"])), p), c


def group_norm_lstm(groups: int, x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Wu and He 2018, equations 1, 2 and 7, where Ba et al. have their norms; c is one group."""

    def normed(z: np.ndarray, gain: np.ndarray) -> np.ndarray:
        parts = zip(np.split(z, groups), np.split(gain, groups), strict=True)
        return np.concatenate([norm(part, own) for part, own in parts])

    z = normed(p["weight_ih"] @ x, p["gain_ih"]) + normed(p["weight_hh"] @ h, p["gain_hh"]) + bias(p)
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * states[1] + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(norm(c, p["gain_c"], p.get("bias_c", 0.0))), p), c


def layer_norm_gru(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """The authors' lngru_layer: one norm for both gates, one for the candidate, the reset gate after the product's."""
    two = 2 * len(h)
    gates = norm(p["weight_ih"][:two] @ x, p["gain_ih"][:two]) + norm(p["weight_hh"][:two] @ h, p["gain_hh"][:two])
    new, old = (norm(p[f"weight_{k}"][two:] @ v, p[f"gain_{k}"][two:]) for k, v in (("ih", x), ("hh", h)))
    if "bias_ih" in p:
        gates = gates + p["bias_ih"][:two] + p["bias_hh"][:two]
        new, old = new + p["bias_ih"][two:], old + p["bias_hh"][two:]
    r, z = np.split(sigmoid(gates), 2)
    return ((1 - z) * np.tanh(new + r * old) + z * states[0],)


def rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    return (np.tanh(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p)),)


def relu_rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    return (relu(p["weight_ih"] @ x + p["weight_hh"] @ h + bias(p)),)


def ind_rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Li et al. 2018, equation 4."""
    return (relu(p["weight_ih"] @ x + p["weight_hh"] * h + p.get("bias_ih", 0.0)),)


def tanh_ind_rnn(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    return (np.tanh(p["weight_ih"] @ x + p["weight_hh"] * h + p.get("bias_ih", 0.0)),)


def gru(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """torch.nn.GRU's documentation."""
    x_r, x_z, x_n = np.split(p["weight_ih"] @ x + p.get("bias_ih", 0.0), 3)
    h_r, h_z, h_n = np.split(p["weight_hh"] @ h + p.get("bias_hh", 0.0), 3)
    z = sigmoid(x_z + h_z)
    return ((1 - z) * np.tanh(x_n + sigmoid(x_r + h_r) * h_n) + z * states[0],)


def before_product(h: np.ndarray, r: np.ndarray, u: np.ndarray, rest: np.ndarray) -> np.ndarray:
    return np.tanh(u @ (r * h) + rest)


def original_gru(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Cho et al. 2014, equations 5 to 8, with vectors for their single units."""
    w_r, w_z, w = np.split(p["weight_ih"], 3)
    u_r, u_z, u = np.split(p["weight_hh"], 3)
    b_r, b_z, b = np.split(p.get("bias_ih", np.zeros(len(p["weight_ih"]))), 3)
    r, z = sigmoid(w_r @ x + u_r @ h + b_r), sigmoid(w_z @ x + u_z @ h + b_z)
    return (z * states[0] + (1 - z) * before_product(h, r, u, w @ x + b),)


def mut1(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Jozefowicz et al. 2015, MUT1."""
    w_r, w_z = np.split(p["weight_ih"], 2)
    u_r, u_h = np.split(p["weight_hh"], 2)
    b_r, b_z, b_h = np.split(p.get("bias_ih", np.zeros(3 * len(h))), 3)
    r, z = sigmoid(w_r @ x + u_r @ h + b_r), sigmoid(w_z @ x + b_z)
    alone = p["weight_in"] @ x if "weight_in" in p else x
    return (before_product(h, r, u_h, np.tanh(alone) + b_h) * z + states[0] * (1 - z),)


def mut2(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Jozefowicz et al. 2015, MUT2."""
    w_z, w_h = np.split(p["weight_ih"], 2)
    u_r, u_z, u_h = np.split(p["weight_hh"], 3)
    b_r, b_z, b_h = np.split(p.get("bias_ih", np.zeros(3 * len(h))), 3)
    alone = p["weight_in"] @ x if "weight_in" in p else x
    r, z = sigmoid(alone + u_r @ h + b_r), sigmoid(w_z @ x + u_z @ h + b_z)
    return (before_product(h, r, u_h, w_h @ x + b_h) * z + states[0] * (1 - z),)


def mut3(x: np.ndarray, h: np.ndarray, states: States, p: Params) -> States:
    """Jozefowicz et al. 2015, MUT3."""
    w_r, w_z, w_h = np.split(p["weight_ih"], 3)
    u_r, u_z, u_h = np.split(p["weight_hh"], 3)
    b_r, b_z, b_h = np.split(p.get("bias_ih", np.zeros(3 * len(h))), 3)
    r, z = sigmoid(w_r @ x + u_r @ h + b_r), sigmoid(w_z @ x + u_z @ np.tanh(h) + b_z)
    return (before_product(h, r, u_h, w_h @ x + b_h) * z + states[0] * (1 - z),)


CELLS: dict[str, Callable[[np.ndarray, np.ndarray, States, Params], States]] = {
    "LSTM": lstm,
    "LayerNormLSTM": layer_norm_lstm,
    "NormalizedCellLSTM": normalized_cell_lstm,
    "RMSNormLSTM": rms_norm_lstm,
    "GroupNormLSTM": partial(group_norm_lstm, 4),
    "GroupNormLSTM, two groups": partial(group_norm_lstm, 2),
    "GroupNormLSTM, one group": partial(group_norm_lstm, 1),
    "PeepholeLSTM": peephole_lstm,
    "CoupledLSTM": coupled_lstm,
    "JANET": janet,
    "JANET, beta = 0": partial(janet, beta=0.0),
    "JANET, beta = -0.5": partial(janet, beta=-0.5),
    "RNN": rnn,
    "RNN, ReLU": relu_rnn,
    "IndRNN": ind_rnn,
    "IndRNN, tanh": tanh_ind_rnn,
    "GRU": gru,
    "LayerNormGRU": layer_norm_gru,
    "OriginalGRU": original_gru,
    "MUT1": mut1,
    "MUT2": mut2,
    "MUT3": mut3,
}
