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


def cell_of(kind: Kind) -> Kind:
    """The cell of a module, with the same settings."""
    module, settings = (kind.func, kind.keywords) if isinstance(kind, partial) else (kind, {})
    return partial(getattr(gnn, f"{module.__name__}Cell"), **settings)


# BatchNormLSTM's has to be told the step: a test of its own.
CELLS: dict[str, Kind] = {name: cell_of(kind) for name, kind in (MODULES | VARIANTS).items() if name != "BatchNormLSTM"}
CELLS["LayerNormLSTM, eps"] = partial(gnn.LayerNormLSTMCell, eps=0.1)
CELLS["LayerNormGRU, eps"] = partial(gnn.LayerNormGRUCell, eps=0.1)
LAYERS = MODULES | VARIANTS
LAYERS |= {name: partial(getattr(gnn, name.split(",")[0]), eps=0.1) for name in CELLS if name.endswith(", eps")}
LACKS: dict[str, tuple[str, ...]] = {
    "IndRNN": ("weight_dropout",),
    "IndRNN, tanh": ("weight_dropout",),
}
