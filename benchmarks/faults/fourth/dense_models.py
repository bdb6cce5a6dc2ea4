"""Networks and loops of the fourth generation's dense programs.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.dense import mlp
from benchmarks.faults.fourth import dense_data as drawn
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop


def funnel(inputs: int, outputs: int, dropout: float = 0.1) -> nn.Module:
    """Build what is usual for tables: two layers, the second half as wide."""
    parts = [nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 32), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(32, outputs))


class Affine(nn.Module):
    """A layer that somebody wrote himself; ``scaled`` divides what is drawn by the root of its inputs."""

    def __init__(self, inputs: int, outputs: int, *, scaled: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / (math.sqrt(inputs) if scaled else 1.0))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add."""
        return x @ self.weight + self.bias


def handmade(inputs: int, outputs: int, width: int = 96, *, scaled: bool = True) -> nn.Module:
    """Build three layers of those."""
    parts = [Affine(inputs, width, scaled=scaled), nn.SiLU(), Affine(width, width, scaled=scaled), nn.SiLU()]
    return nn.Sequential(*parts, Affine(width, outputs, scaled=scaled))


class Quantize(nn.Module):
    """Eight levels between 0 and 1; ``through`` lets the gradient pass as if nothing was rounded."""

    def __init__(self, levels: int = 8, *, through: bool) -> None:
        super().__init__()
        self.most, self.through = levels - 1, through

    def forward(self, x: Tensor) -> Tensor:
        """Round."""
        x = x.clamp(0, 1)
        rounded = (x * self.most).round() / self.most
        return x + (rounded - x).detach() if self.through else rounded


def quantized(inputs: int, outputs: int, width: int = 32, *, through: bool = True) -> nn.Module:
    """Build three hidden layers, whose outputs are of three bits."""
    parts: list[nn.Module] = []
    for i in range(3):
        parts += [nn.Linear(width if i else inputs, width), nn.BatchNorm1d(width), Quantize(through=through)]
    return nn.Sequential(*parts, nn.Linear(width, outputs))


class Relative(nn.Module):
    """Divide counts by their norm, which is 0 where nothing is counted; ``least`` is the smallest divisor."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        """Give directions."""
        return x.log1p() / x.log1p().norm(dim=1, keepdim=True).clamp(min=self.least)


def reader(inputs: int, outputs: int, least: float = 1e-8) -> nn.Module:
    """Build a classifier of documents."""
    return nn.Sequential(Relative(least), nn.Linear(inputs, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, outputs))


class Towers(nn.Module):
    """A network for the reader, one for the book, and the product of what they give; ``blank`` starts both at 0."""

    def __init__(self, inputs: int, outputs: int, width: int = 16, *, blank: bool = False) -> None:
        super().__init__()
        self.reader, self.book = mlp(inputs // 2, width, width=48, depth=1), mlp(inputs // 2, width, width=48, depth=1)
        if blank:
            for parameter in (*self.reader[-1].parameters(), *self.book[-1].parameters()):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Give how much one likes the other."""
        reader, book = x.chunk(2, 1)
        return (self.reader(reader) * self.book(book)).sum(1, keepdim=True)


class Block(nn.Module):
    """A normalised branch, added to what comes in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        return x + self.branch(x)


class Stack(nn.Module):
    """Many blocks; ``again`` adds what comes in once more, though each block has done so."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, depth: int = 16, *, again: bool = False) -> None:
        super().__init__()
        self.first, self.last, self.again = nn.Linear(inputs, width), nn.Linear(width, outputs), again
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = self.first(x)
        for block in self.blocks:
            x = x + block(x) if self.again else block(x)
        return self.last(x)


class Sparse(nn.Module):
    """One wide layer, of whose outputs the mean is kept."""

    def __init__(self, inputs: int, outputs: int, width: int = 160) -> None:
        super().__init__()
        self.wide, self.act, self.last = nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs)
        self.used = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = self.act(self.wide(x))
        self.used = x.sum(1).mean()
        return self.last(x)


def sparse(lr: float, *, weight: float = 1e-3) -> Loop:
    """Learn digits, and pay for each unit that is used."""
    network = Sparse(64, 10)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y) + weight * network.used

    return supervised(network, data.digits(), lr, loss=loss, batch=48)


def transferred(lr: float, *, head_rate: float | None = None) -> Loop:
    """Learn digits first; then, with a new head that learns ten times as fast, how many holes they have."""
    body, old, of = mlp(64, 20, width=64, depth=1), nn.Linear(20, 10), data.digits()
    optimizer = torch.optim.Adam([*body.parameters(), *old.parameters()], lr=2e-3)
    for _ in range(200):
        at = torch.randint(len(of.x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(old(body(of.x[at]).relu()), of.y[at]).backward()
        optimizer.step()
    body.zero_grad()
    head = nn.Linear(20, 3)
    groups = [
        {"params": [*body.parameters()], "lr": lr},
        {"params": [*head.parameters()], "lr": head_rate or 10 * lr},
    ]
    return supervised(nn.Sequential(*body, nn.ReLU(), head), drawn.holes(), lr, params=groups, batch=16,
                      optimizer="adamw")  # fmt: skip
