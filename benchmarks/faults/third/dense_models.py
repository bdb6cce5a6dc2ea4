"""Networks and losses of the third generation's dense programs.

Shape legend: N = examples, F = features, B = instances of a bag.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.dense import mlp
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop
from benchmarks.faults.third.dense_data import INSTANCES, turned

SCALE = 1024.0


class Euler(nn.Module):
    """A differential equation, solved by steps of Euler, each of which has its own weights."""

    def __init__(self, inputs: int, outputs: int, width: int = 24, steps: int = 20, size: float | None = None) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, width), nn.Linear(width, outputs)
        self.slopes = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Tanh()) for _ in range(steps))
        self.size = size or 1 / steps
        for slope in self.slopes:
            nn.init.orthogonal_(slope[0].weight, gain=3.0)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = self.first(x)
        for slope in self.slopes:
            x = x + self.size * slope(x)
        return self.last(x)


class Experts(nn.Module):
    """Linear experts, mixed by what a gate says; ``picks`` takes the first choice of the gate alone."""

    def __init__(self, inputs: int, outputs: int, experts: int = 12, *, picks: bool = False) -> None:
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, experts))
        self.experts, self.picks = nn.ModuleList(nn.Linear(inputs, outputs) for _ in range(experts)), picks

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        share = self.gate(x).softmax(1)
        if self.picks:
            share = F.one_hot(share.argmax(1), share.shape[1]).float()
        return (torch.stack([expert(x) for expert in self.experts], 2) * share[:, None]).sum(2)


class Adapted(nn.Module):
    """A frozen layer, and a product of two thin matrices that is added to it: Hu et al., 2021."""

    def __init__(self, layer: nn.Linear, rank: int, start: float) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.down = nn.Parameter(start * torch.randn(rank, layer.in_features) / rank)
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """Give the layer's output, changed."""
        return self.layer(x) + 2 * x @ self.down.T @ self.up.T


def adapted(lr: float, *, start: float = 1.0, rank: int = 6) -> Loop:
    """Learn digits first; then, with thin matrices alone, digits that lie on their side."""
    body = mlp(64, 10, width=96, act=nn.GELU)
    optimizer, of = torch.optim.Adam(body.parameters(), lr=3e-3), data.digits()
    for _ in range(150):
        at = torch.randint(len(of.x), (64,))
        optimizer.zero_grad()
        F.cross_entropy(body(of.x[at]), of.y[at]).backward()
        optimizer.step()
    body.zero_grad()
    parts = [Adapted(part, rank, start) if isinstance(part, nn.Linear) else part for part in body]
    return supervised(nn.Sequential(*parts), turned(), lr, batch=48, optimizer="adamw")


class Bags(nn.Module):
    """Features of each instance, their mean or sum, and a network of that."""

    def __init__(self, inputs: int, outputs: int, width: int = 32, *, adds: bool = False) -> None:
        super().__init__()
        self.instance = nn.Sequential(nn.Linear(inputs // INSTANCES, width), nn.ReLU())
        self.bag, self.adds = mlp(width, outputs, width=width, act=nn.Tanh), adds

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of bags [N, 4 B]."""
        found = self.instance(x.unflatten(1, (INSTANCES, -1)))
        return self.bag(found.sum(1) if self.adds else found.mean(1))


def gives_scaled(output: Tensor, y: Tensor) -> Tensor:
    """Give a loss that is 1,024 times as large, so that gradients of 16 bits would not round to zero."""
    return SCALE * F.cross_entropy(output, y)


@torch.no_grad()
def unscale(step: int, network: nn.Module) -> None:
    """Make the gradients what they would be without the scale."""
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad /= SCALE


def in_euros(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give the targets of some steps in euros, and not in hundreds of thousands of them."""
    return lambda step, x, y: (x, 1e5 * y if first <= step <= last else y)
