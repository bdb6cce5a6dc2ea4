"""A small recurrent model that reads a sequence and says one number, and a loop that trains it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradguard import Guard

T, B, FEATURES, UNITS = 30, 4, 3, 6


class Reader(nn.Module):
    def __init__(self, rnn: nn.Module | None = None) -> None:
        super().__init__()
        self.rnn = nn.LSTM(FEATURES, UNITS) if rnn is None else rnn
        self.out = nn.Linear(UNITS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][-1])


class Looping(nn.Module):
    """A loop over a cell of one's own, which tells its states."""

    def __init__(self, watch: Callable[..., None] | None = None) -> None:
        super().__init__()
        self.cell, self.out, self.watch = nn.LSTMCell(FEATURES, UNITS), nn.Linear(UNITS, 1), watch

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[1], UNITS)
        for t, row in enumerate(x):
            h, c = self.cell(row, (h, c))
            if self.watch is not None:
                self.watch((h, c), t)
        return self.out(h)


def batches(steps: int, *, length: int = T, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(length, B, FEATURES, generator=generator), torch.randn(B, 1, generator=generator))
        for _ in range(steps)
    ]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return (model(batch[0]).float() - batch[1]).square().mean()


def made(kind: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind()


def trained(model: nn.Module, steps: int = 6, *, length: int = T, **settings: Any) -> Guard:
    """Train with a guard, which is closed and given back."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Guard(model, optimizer, **settings) as guard:
        for batch in batches(steps, length=length):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            guard.record_loss(loss)
            loss.backward()
            optimizer.step()
    return guard
