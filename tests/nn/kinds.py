"""Settings of modules that change their equations, and options of the family that a cell does not have."""

from __future__ import annotations

from functools import partial

from gradguard import nn as gnn
from tests.contracts.recurrent import MODULES, Kind

VARIANTS: dict[str, Kind] = {
    "GroupNormLSTM, two groups": partial(gnn.GroupNormLSTM, num_groups=2),
    "GroupNormLSTM, one group": partial(gnn.GroupNormLSTM, num_groups=1),
    "JANET, beta = 0": partial(gnn.JANET, beta=0.0),
    "JANET, beta = -0.5": partial(gnn.JANET, beta=-0.5),
    "IndRNN, tanh": partial(gnn.IndRNN, length=5, nonlinearity="tanh"),
    "RNN, ReLU": partial(gnn.RNN, nonlinearity="relu"),
}
CELLS: dict[str, Kind] = {
    name: getattr(gnn, f"{name}Cell") for name, kind in MODULES.items() if kind is getattr(gnn, name)
}
CELLS["IndRNN"] = partial(gnn.IndRNNCell, length=5)  # BatchNormLSTM's has to be told the step: a test of its own
LACKS: dict[str, tuple[str, ...]] = {
    "IndRNN": ("weight_dropout",),
    "IndRNN, tanh": ("weight_dropout",),
}
