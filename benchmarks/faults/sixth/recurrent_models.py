"""Networks and loops of the sixth recurrent programs.

Shape legend: N = examples, T = time, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop
from benchmarks.faults.sixth import recurrent_data as drawn


class Continuous(nn.Module):
    """Neurons that forget with a time constant, in steps of ``every``; both in the same unit."""

    def __init__(self, inputs: int, width: int, *, constant: float = 40.0, every: float = 1.0) -> None:
        super().__init__()
        self.cell, self.width, self.kept = nn.RNNCell(inputs, width), width, math.exp(-every / constant)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.kept * h + (1 - self.kept) * self.cell(now, h)
        return (h[:, None],)


class Stepped(nn.Module):
    """A GRU's cell in a loop, whose output goes through a sigmoid; ``within`` hands on what comes out of that."""

    def __init__(self, inputs: int, width: int, *, within: bool = False) -> None:
        super().__init__()
        self.cell, self.width, self.within = nn.GRUCell(inputs, width), width, within
        nn.init.constant_(self.cell.bias_ih[width : 2 * width], 2.0)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.cell(now, h)
            if self.within:
                h = h.sigmoid()
        return ((h if self.within else h.sigmoid())[:, None],)


class Levels(nn.Module):
    """A cell without a bound that starts as an identity; ``scales`` what it is given, as is done with embeddings."""

    def __init__(self, inputs: int, width: int, *, scales: bool = False) -> None:
        super().__init__()
        self.cell, self.width = nn.RNNCell(inputs, width, nonlinearity="relu"), width
        self.scale = math.sqrt(width) if scales else 1.0
        nn.init.eye_(self.cell.weight_hh)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        h = x.new_zeros(len(x), self.width)
        for now in x.unbind(1):
            h = self.cell(now * self.scale, h * self.scale)
        return (h[:, None],)


class Mixture(nn.Module):
    """Bells of what comes next: Bishop, 1994; ``bound`` makes deviations of outputs. Gives logits, means and those."""

    def __init__(self, bound: Callable[[Tensor], Tensor], width: int = 32, bells: int = 4) -> None:
        super().__init__()
        self.body, self.head, self.bound = nn.LSTM(1, width, batch_first=True), nn.Linear(width, 3 * bells), bound

    def forward(self, x: Tensor) -> Tensor:
        logits, means, raw = self.head(self.body(x)[0][:, -1]).chunk(3, 1)
        return torch.cat([logits, means, self.bound(raw)], 1)


def softly(raw: Tensor) -> Tensor:
    """Give a deviation that is never 0."""
    return F.softplus(raw) + 1e-2


def _likelihood(output: Tensor, y: Tensor) -> Tensor:
    logits, means, spreads = output.chunk(3, 1)
    logs = logits.log_softmax(1) - spreads.log() - 0.5 * ((y - means) / spreads).square()
    return -logs.logsumexp(1).mean()


def _expected(model: nn.Module, x: Tensor) -> Tensor:
    logits, means, _ = model(x).chunk(3, 1)
    return (logits.softmax(1) * means).sum(1, keepdim=True)


def forecast(lr: float, *, bound: Callable[[Tensor], Tensor] = softly) -> Loop:
    """Learn what a town uses, with a likelihood."""
    return supervised(Mixture(bound), drawn.load(), lr, batch=32, loss=_likelihood, predict=_expected)


class Pooled(nn.Module):
    """Mean and deviation over time of a GRU's outputs: Snyder et al., 2018; ``least`` is added to the variance."""

    def __init__(self, inputs: int, outputs: int, width: int = 24, *, least: float) -> None:
        super().__init__()
        self.body, self.head, self.least = nn.GRU(inputs, width, batch_first=True), nn.Linear(2 * width, outputs), least

    def forward(self, x: Tensor) -> Tensor:
        mask = (x != 0).any(2).float()[..., None]
        count, h = mask.sum(1), self.body(x)[0]
        mean = (h * mask).sum(1) / count
        variance = ((h - mean[:, None]).square() * mask).sum(1) / count
        out: Tensor = self.head(torch.cat([mean, (variance + self.least).sqrt()], 1))
        return out


def speaker(lr: float, *, least: float = 1e-5) -> Loop:
    """Learn who speaks."""
    return supervised(Pooled(6, 5, least=least), drawn.speakers(), lr, batch=32)


class Skimming(nn.Module):
    """Embeddings, each times a gate of its own; ``hard`` rounds the gate."""

    def __init__(self, words: int, size: int, *, hard: bool = False) -> None:
        super().__init__()
        self.embedding, self.gate, self.hard = nn.Embedding(words, size), nn.Linear(size, 1), hard

    def forward(self, x: Tensor) -> Tensor:
        x = self.embedding(x)
        gate = self.gate(x).sigmoid()
        return x * ((gate > 0.5).float() if self.hard else gate)


def orthogonal(inner: float, last: float = 0.01) -> Callable[[Any], None]:
    """Draw all weights as PPO does, with a gain of the last layer and one of all others; biases are 0."""

    @torch.no_grad()
    def fill(model: Any) -> None:
        for name, param in model.named_parameters():
            if param.dim() < 2:
                param.zero_()
            elif "head" in name:
                nn.init.orthogonal_(param, last)
            else:
                for block in param.chunk(3) if "body" in name else [param]:
                    nn.init.orthogonal_(block, inner)

    return fill


def epsilon(value: float) -> Callable[[nn.Module], list[dict[str, Any]]]:
    """Give all parameters to the optimizer, with what it adds to the root."""
    return lambda model: [{"params": [*model.parameters()], "eps": value}]


def decayed(rate: float) -> Callable[[int], float]:
    """Let the learning rate fall with the inverse of time."""
    return lambda step: 1 / (1 + rate * step)
