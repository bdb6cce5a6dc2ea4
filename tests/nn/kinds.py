"""Settings of modules that change their equations, and options of the family that a cell does not have."""

from __future__ import annotations

from functools import partial

from gradguard import nn as gnn
from tests.contracts.recurrent import MODULES, Kind

VARIANTS: dict[str, Kind] = {
    "RNN, ReLU": partial(gnn.RNN, nonlinearity="relu"),
}
CELLS: dict[str, Kind] = {
    name: getattr(gnn, f"{name}Cell") for name in MODULES if not isinstance(MODULES[name], partial)
}
LACKS: dict[str, tuple[str, ...]] = {}
