"""Networks and losses of the dense programs.

Shape legend: N = examples, F = features, P = points of a set.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.data import Split
from benchmarks.faults.dense import mlp
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import Change, layers
from benchmarks.faults.program import Loop
from benchmarks.faults.second.dense_data import POINTS


def fit(
    lr: float,
    *,
    split: Callable[[], Split],
    model: Callable[[int, int], nn.Module] = mlp,
    change: Change | None = None,
    group: dict[str, Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a network for a split, change it, train it; ``group`` is what else the optimizer is told."""
    of = split()
    network = model(of.x.shape[1], of.y.shape[1] if of.y.is_floating_point() else int(of.y.max()) + 1)
    if change:
        with torch.no_grad():
            change(network)
    return supervised(network, of, lr, params=[{"params": [*network.parameters()], **(group or {})}], **loop)


class Fourier(nn.Module):
    """Sines of random directions, then a network; ``blind`` runs its hidden layers without gradients."""

    def __init__(self, inputs: int, outputs: int, *, blind: bool = False) -> None:
        super().__init__()
        self.register_buffer("directions", 2.5 * torch.randn(inputs, 12))
        self.body = nn.Sequential(nn.Linear(24, 48), nn.GELU(), nn.Linear(48, 10), nn.GELU(), nn.Linear(10, 10))
        self.head, self.blind = nn.Sequential(nn.GELU(), nn.Linear(10, outputs)), blind

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        angles = x @ self.get_buffer("directions")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.blind):
            hidden = self.body(torch.cat([angles.sin(), angles.cos()], 1))
        return self.head(hidden)


class Sine(nn.Module):
    """A sinusoidal layer: Sitzmann et al., 2020."""

    def __init__(self, inputs: int, outputs: int, frequency: float, *, first: bool = False) -> None:
        super().__init__()
        self.linear, self.frequency = nn.Linear(inputs, outputs), frequency
        bound = 1 / inputs if first else math.sqrt(6 / inputs) / frequency
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Give sines."""
        return (self.frequency * self.linear(x)).sin()


def siren(inputs: int, outputs: int, width: int = 48, frequency: float = 12.0) -> nn.Module:
    """Build a network of sines."""
    hidden = [Sine(width, width, frequency) for _ in range(3)]
    return nn.Sequential(Sine(inputs, width, frequency, first=True), *hidden, nn.Linear(width, outputs))


class Highway(nn.Module):
    """A layer and a gate that carries past it, nearly shut at the start; ``carries`` off forgets what is carried."""

    def __init__(self, width: int, *, carries: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.Tanh())
        self.gate, self.carries = nn.Sequential(nn.Linear(width, width), nn.Sigmoid()), carries
        nn.init.constant_(self.gate[0].bias, -2.0)

    def forward(self, x: Tensor) -> Tensor:
        """Mix."""
        gate = self.gate(x)
        return gate * self.inner(x) + (1 - gate) * x if self.carries else gate * self.inner(x)


def highway(inputs: int, outputs: int, width: int = 32, depth: int = 9, *, carries: bool = True) -> nn.Module:
    """Build a stack of highway layers: Srivastava et al., 2015."""
    blocks = [Highway(width, carries=carries) for _ in range(depth)]
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.Linear(width, outputs))


class ReZero(nn.Module):
    """A shortcut, and a branch that counts nothing at the start: Bachlechner et al., 2020."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.share = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return x + self.share * self.branch(x)


def rezero(inputs: int, outputs: int, width: int = 32, depth: int = 10) -> nn.Module:
    """Build a deep network whose blocks do nothing yet, nor its last layer."""
    head = nn.Linear(width, outputs)
    nn.init.zeros_(head.weight)
    return nn.Sequential(nn.Linear(inputs, width), *[ReZero(width) for _ in range(depth)], head)


class Normed(nn.Module):
    """A layer with batch normalisation, and a shortcut if ``around``."""

    def __init__(self, width: int, *, around: bool) -> None:
        super().__init__()
        self.linear, self.norm, self.act = nn.Linear(width, width), nn.BatchNorm1d(width), nn.ReLU()
        self.around = around

    def forward(self, x: Tensor) -> Tensor:
        """Give what comes out."""
        found = self.act(self.norm(self.linear(x)))
        return x + found if self.around else found


def tower(inputs: int, outputs: int, width: int = 24, depth: int = 25, *, around: bool = True) -> nn.Module:
    """Build very many layers."""
    blocks = [Normed(width, around=around) for _ in range(depth)]
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.BatchNorm1d(width), nn.Linear(width, outputs))


class DeepSet(nn.Module):
    """Features of points, the largest of each, and a network of that: Qi et al., 2017."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.point = nn.Sequential(nn.Linear(inputs // POINTS, 48), nn.GELU(), nn.Linear(48, 48))
        self.whole = mlp(48, outputs, width=48)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits of sets [N, 2 P]."""
        return self.whole(self.point(x.unflatten(1, (POINTS, -1))).amax(1))


def steering(inputs: int, outputs: int) -> nn.Module:
    """Build a network whose outputs lie between -1 and 1."""
    return nn.Sequential(*mlp(inputs, outputs, width=48, act=nn.ELU), nn.Tanh())


def contrastive(output: Tensor, y: Tensor) -> Tensor:
    """Pull examples of a class together: Khosla et al., 2020."""
    z = F.normalize(output, dim=1)
    itself = torch.eye(len(y), dtype=torch.bool)
    alike = (y[:, None] == y) & ~itself
    logs = (z @ z.T / 0.2).masked_fill(itself, -1e9).log_softmax(1)
    return -((logs * alike).sum(1) / alike.sum(1).clamp(min=1)).mean()


def nearest(network: nn.Module, x: Tensor) -> Tensor:
    """Compare with the mean of each class of the training digits."""
    of = data.digits()
    known = F.normalize(network(of.x), dim=1)
    centres = torch.stack([known[of.y == c].mean(0) for c in range(10)])
    return F.normalize(network(x), dim=1) @ F.normalize(centres, dim=1).T


def rate_of_counts(output: Tensor, y: Tensor) -> Tensor:
    """Take the output for the rate itself, whose logarithm is wanted."""
    return (output - y * output.log()).mean()


def growing(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Show two classes, and two more after every 70 steps."""
    known = (y < 2 + 2 * (step // 70)).nonzero()[:, 0]
    at = known[torch.randint(len(known), (len(y),))]
    return x[at], y[at]


def alike(network: nn.Module) -> None:
    """Repeat one unit in each hidden layer, with all that goes in and out of it."""
    first, *rest = layers(network)
    first.weight.copy_(first.weight[:1].clone())
    first.bias.zero_()
    for layer in rest:
        layer.weight.fill_(1 / layer.in_features)
        layer.bias.zero_()


def positive(network: nn.Module) -> None:
    """Draw weights between 0 and 1."""
    for layer in layers(network):
        layer.weight.uniform_()


def shifted(network: nn.Module) -> None:
    """Let normalisation end far below zero."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.bias.fill_(-8.0)


def tuned(lr: float) -> Loop:
    """Learn half of the classes first; then all of them, with a new head and a slow body."""
    of = data.digits()
    body = nn.Sequential(nn.Linear(64, 80), nn.ELU(), nn.Linear(80, 80), nn.ELU())
    old = nn.Linear(80, 5)
    optimizer = torch.optim.Adam([*body.parameters(), *old.parameters()], lr=2e-3)
    easy = (of.y < 5).nonzero()[:, 0]
    for _ in range(150):
        at = easy[torch.randint(len(easy), (64,))]
        optimizer.zero_grad()
        F.cross_entropy(old(body(of.x[at])), of.y[at]).backward()
        optimizer.step()
    head = nn.Linear(80, 10)
    groups = [{"params": [*body.parameters()], "lr": lr / 100}, {"params": [*head.parameters()], "lr": lr}]
    body.zero_grad()
    return supervised(nn.Sequential(*body, head), of, lr, params=groups, batch=48)
