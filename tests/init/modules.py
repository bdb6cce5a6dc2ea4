"""Modules that the initialisers' tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from gradguard import init
from gradguard import nn as gnn

Make = Callable[[], nn.Module]
LSTMS: dict[str, Make] = {
    "LSTM": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True),
    "projected": lambda: nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2),
    "LSTMCell": lambda: nn.LSTMCell(3, 4),
    "gnn.LSTM": lambda: gnn.LSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "gnn projected": lambda: gnn.LSTM(3, 4, num_layers=2, proj_size=2, forget_bias=None),
    "gnn.LSTMCell": lambda: gnn.LSTMCell(3, 4, forget_bias=None),
    "gnn.LayerNormLSTM": lambda: gnn.LayerNormLSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "gnn.LayerNormLSTMCell": lambda: gnn.LayerNormLSTMCell(3, 4, forget_bias=None),
    "gnn.RMSNormLSTM": lambda: gnn.RMSNormLSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "gnn.GroupNormLSTM": lambda: gnn.GroupNormLSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "gnn.GroupNormLSTMCell": lambda: gnn.GroupNormLSTMCell(3, 4, num_groups=2, forget_bias=None),
    "gnn.PeepholeLSTM": lambda: gnn.PeepholeLSTM(3, 4, num_layers=2, bidirectional=True, forget_bias=None),
    "gnn.PeepholeLSTMCell": lambda: gnn.PeepholeLSTMCell(3, 4, forget_bias=None),
}
GRUS: dict[str, Make] = {
    "GRU": lambda: nn.GRU(3, 4, num_layers=2, bidirectional=True),
    "GRUCell": lambda: nn.GRUCell(3, 4),
    "gnn.LayerNormGRU": lambda: gnn.LayerNormGRU(3, 4, num_layers=2, bidirectional=True),
    "gnn.LayerNormGRUCell": lambda: gnn.LayerNormGRUCell(3, 4),
}
RNNS: dict[str, Make] = {
    "RNN": lambda: nn.RNN(3, 4, num_layers=2, bidirectional=True),
    "ReLU RNN": lambda: nn.RNN(3, 4, nonlinearity="relu"),
    "RNNCell": lambda: nn.RNNCell(3, 4),
}
GATED = {**LSTMS, **GRUS}
RECURRENT = {**GATED, **RNNS}


class Tagger(nn.Module):
    """A recurrent layer between two linear ones."""

    def __init__(self, rnn: nn.Module | None = None) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Linear(3, 6), rnn or nn.LSTM(6, 5, num_layers=2, bidirectional=True, dropout=0.5)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.rnn(torch.relu(self.embed(x)))[0]))


def values(module: nn.Module) -> dict[str, Tensor]:
    """Copy all that a module holds."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def is_as_before(module: nn.Module, before: dict[str, Tensor]) -> bool:
    """Say whether nothing has changed."""
    now = module.state_dict()
    return now.keys() == before.keys() and all(torch.equal(now[name], value) for name, value in before.items())


def of_weights(changes: Iterable[init.Change]) -> list[init.Change]:
    """Leave biases out of a report."""
    return [change for change in changes if not change.name.split(".")[-1].startswith("bias")]
