"""Models with a recurrent module in the middle, and when two looks into them say the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradguard import nn as gnn
from gradguard.probe import Profile

KINDS = [nn.LSTM, nn.GRU, nn.RNN, gnn.LSTM, gnn.LayerNormGRU]
IN, H = 3, 4


class Model(nn.Module):
    """What comes before and after a recurrent module; ``run`` says how the middle of it is called."""

    def __init__(self, rnn: nn.Module, run: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        self.norm, self.drop, self.rnn = nn.BatchNorm1d(IN), nn.Dropout(0.3), rnn
        self.head = nn.Linear(H, 1)
        self.run = run or (lambda function, x: function(x))
        self.double()

    def middle(self, x: Tensor) -> Tensor:
        output, _ = self.rnn(self.drop(x))
        return self.head(output[-1]).sin()

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.middle, self.norm(x.flatten(0, 1)).view(x.shape))


def batch(*, steps: int = 5) -> Tensor:
    return torch.randn(steps, 3, IN, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def loss_of(model: Any, x: Tensor) -> Tensor:
    found = model(x)
    return (found[0][-1] if isinstance(found, tuple) else found).square().sum()


def made(kind: Any, layers: int = 2) -> nn.Module:
    torch.manual_seed(0)
    return kind(IN, H, layers, dtype=torch.float64)


def same(found: tuple[Profile, ...], right: tuple[Profile, ...], rtol: float = 1e-12) -> None:
    assert [one.layer for one in found] == [one.layer for one in right]
    for one, of in zip(found, right, strict=True):
        pairs = [
            (one.h, of.h),
            (one.memory, of.memory),
            *((one.gate_grads[g], of.gate_grads[g]) for g in of.gate_grads),
        ]
        for a, b in [*pairs, *([] if of.c is None else [(one.c, of.c)])]:
            torch.testing.assert_close(a, b, rtol=rtol, atol=rtol * float(b.max()))
        assert one.is_at_end == of.is_at_end
