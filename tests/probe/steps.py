"""One step of every cell in plain differentiable torch: torch's three by their formulas, ours as functions.

Shape legend: B = batch, I = input, H = hidden, P = width of h, G = what goes into the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.functional import recurrence
from gradguard.functional.recurrence import Moments

Params = Mapping[str, Tensor]
Step = Callable[..., tuple[Tensor, ...]]  # of the step's number, x, the states, and the parameters by name
SETTINGS = "eps", "num_groups", "beta", "nonlinearity"


def summed(x: Tensor, h: Tensor, p: Params) -> Tensor:
    return x @ p["weight_ih"].T + p["bias_ih"] + h @ p["weight_hh"].T + p.get("bias_hh", 0.0)


def torch_lstm(_: int, x: Tensor, h: Tensor, c: Tensor, **p: Tensor) -> tuple[Tensor, ...]:
    i, f, g, o = summed(x, h, p).chunk(4, dim=1)
    c_new = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    m = torch.sigmoid(o) * torch.tanh(c_new)
    return m @ p["weight_hr"].T if "weight_hr" in p else m, c_new


def torch_gru(_: int, x: Tensor, h: Tensor, **p: Tensor) -> tuple[Tensor, ...]:
    x_r, x_z, x_n = (x @ p["weight_ih"].T + p["bias_ih"]).chunk(3, dim=1)
    h_r, h_z, h_n = (h @ p["weight_hh"].T + p.get("bias_hh", 0.0)).chunk(3, dim=1)
    z = torch.sigmoid(x_z + h_z)
    return ((1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + h_r) * h_n) + z * h,)


def torch_rnn(_: int, x: Tensor, h: Tensor, *, nonlinearity: Any, **p: Tensor) -> tuple[Tensor, ...]:
    return ((torch.tanh if nonlinearity == "tanh" else torch.relu)(summed(x, h, p)),)


class BatchNormed:
    """The steps of one pass of a BatchNormLSTM: each with the statistics of the batch, or with given ones."""

    def __init__(self, params: Params, settings: dict[str, Any]) -> None:
        self.params, self.settings, self.before = params, settings, None

    def __call__(self, number: int, x: Tensor, h: Tensor, c: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        p, given = self.params | params, None
        if "mean_c" in p:
            given = tuple(Moments(p[f"mean_{norm}"][number], p[f"var_{norm}"][number]) for norm in ("ih", "hh", "c"))
        p = {name: value for name, value in p.items() if not name.startswith(("mean_", "var_"))}
        rest = {"given": given, "before": self.before} | self.settings
        h, c, self.before = recurrence.batch_norm_lstm(x, h, c, **p, **rest)
        return h, c


def of_torch(module: Any, params: Params) -> Step:
    """The steps of a layer of torch's."""
    if isinstance(module, nn.LSTM):
        return partial(torch_lstm, **params)
    if isinstance(module, nn.GRU):
        return partial(torch_gru, **params)
    return partial(torch_rnn, nonlinearity=module.nonlinearity, **params)


def of_ours(cell: Any, params: Params) -> Step:
    """The steps of one pass over a layer of ours."""
    settings = {name: getattr(cell, name) for name in SETTINGS if hasattr(cell, name)}
    if cell.name == "batch_norm_lstm":
        return BatchNormed(params, settings)
    step = getattr(recurrence, cell.name)
    return lambda number, *tensors, **rest: step(*tensors, **(params | rest), **settings)


def params_of(module: nn.Module, k: int) -> dict[str, Tensor]:
    """What torch stores for a layer and direction, by the names of ours."""
    level, second = divmod(k, 2) if module.bidirectional else (k, 0)
    end = f"_l{level}" + "_reverse" * second
    names = "weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"
    return {name: getattr(module, name + end).detach() for name in names if hasattr(module, name + end)}
