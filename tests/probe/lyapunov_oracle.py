"""Lyapunov exponents in NumPy: Jacobians by complex steps, their plain product, one QR."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import nn

from gradguard.probe.growth import random_directions
from tests.nn import oracle
from tests.nn.oracle_cells import Params, States, bias, projected, sigmoid

Step = Callable[[int, np.ndarray, States], States]  # number of the step, x, states


def jacobian(step: Callable[[np.ndarray], np.ndarray], at: np.ndarray) -> np.ndarray:
    """Of every entry with regard to every entry, column by column."""
    columns = []
    for j in range(at.size):
        point = at.astype(np.complex128)
        point[j] += oracle.TINY * 1j
        columns.append(step(point).imag / oracle.TINY)
    return np.stack(columns, axis=1)


def along(step: Step, xs: np.ndarray, states: States) -> tuple[list[np.ndarray], np.ndarray]:
    """The Jacobian of the whole state at each step, and the first state after each."""
    cuts = np.cumsum([s.size for s in states])[:-1]
    jacobians, outputs = [], []
    for t, x in enumerate(xs):
        flat = np.concatenate(states)
        jacobians.append(jacobian(lambda s, t=t, x=x: np.concatenate(step(t, x, tuple(np.split(s, cuts)))), flat))
        states = step(t, x, states)
        outputs.append(states[0])
    return jacobians, np.array(outputs)


def exponents(jacobians: Sequence[np.ndarray], k: int, warmup: int = 0) -> np.ndarray:
    """From the product of all that count, without a QR in between: for few steps."""
    start = random_directions(len(jacobians[0]), k, "cpu").numpy()
    for j in jacobians[:warmup]:
        start = j @ start
    product = np.linalg.qr(start)[0]
    for j in jacobians[warmup:]:
        product = j @ product
    return np.log(np.abs(np.diag(np.linalg.qr(product)[1]))) / (len(jacobians) - warmup)


def batch_norm_lstm(x: np.ndarray, h: np.ndarray, c: np.ndarray, p: Params, row: dict[str, np.ndarray]) -> States:
    """Cooijmans et al. 2017, equations 6 to 8, with what was followed."""

    def normed(z: np.ndarray, name: str) -> np.ndarray:
        return p[f"gain_{name}"] * (z - row[f"mean_{name}"]) / np.sqrt(row[f"var_{name}"] + 1e-5)

    i, f, g, o = np.split(normed(p["weight_ih"] @ x, "ih") + normed(p["weight_hh"] @ h, "hh") + bias(p), 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return projected(sigmoid(o) * np.tanh(normed(c, "c") + p.get("bias_c", 0.0)), p), c


def step_of(cell: str, module: nn.Module, suffix: str, zones: Sequence[float] = (0.0, 0.0)) -> Step:
    """A step of one layer in one direction of a module, with what zoneout keeps of each state."""
    found = {name.removesuffix(suffix): p for name, p in module.named_parameters() if name.endswith(suffix)}
    params = {name: p.detach().double().numpy() for name, p in found.items()}
    if cell != "BatchNormLSTM":
        return lambda t, x, states: oracle.step(cell, x, states, params, oracle.Drawn(), zones)
    followed = {name: b.numpy() for name, b in module.get_submodule(f"statistics{suffix}").named_buffers()}

    def step(t: int, x: np.ndarray, states: States) -> States:
        new = batch_norm_lstm(x, *states, params, {name: rows[t] for name, rows in followed.items()})
        return tuple(z * old + (1 - z) * fresh for fresh, old, z in zip(new, states, zones, strict=True))

    return step


def spectra(
    cell: str, module: Any, x: np.ndarray, hx: Sequence[np.ndarray], k: int, warmup: int, zones: Any = (0.0, 0.0)
) -> dict[str, np.ndarray]:
    """Of one sequence [T, I] through all layers; ``hx``: each state before, [L, S]."""
    found: dict[str, np.ndarray] = {}
    ways = ("", "_reverse") if module.bidirectional else ("",)
    for layer in range(module.num_layers):
        outputs = []
        for i, way in enumerate(ways):
            turn = slice(None, None, -1 if way else 1)
            step = step_of(cell, module, f"_l{layer}{way}", zones)
            jacobians, seen = along(step, x[turn], tuple(state[layer * len(ways) + i] for state in hx))
            found[f"l{layer}{way}"] = exponents(jacobians, k, warmup)
            outputs.append(seen[turn])
        out = np.concatenate(outputs, axis=1)
        if getattr(getattr(module, "settings", None), "residual", False):
            name = module._residuals[layer]
            out = out + (x @ getattr(module, name).detach().numpy().T if name else x)
        x = out
    return found
