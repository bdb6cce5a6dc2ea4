"""Networks and loops of the sixth generation's dense programs.

Shape legend: N = examples, F = features, U = units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.program import Loop
from benchmarks.faults.second.dense_models import fit
from benchmarks.faults.sixth import dense_data as drawn


class Plateau:
    """The rate falls to a tenth when the loss has not become better for some looks at it; never below a hundredth.

    Args:
        mode: ``min``, where a lower loss is better, or ``max``.
        every: steps between looks.
        patience: looks that it waits.
    """

    def __init__(self, mode: str, every: int = 20, patience: int = 2) -> None:
        self.sign, self.every, self.patience = {"min": 1.0, "max": -1.0}[mode], every, patience
        self.seen: list[float] = []
        self.best, self.waited, self.factor = float("inf"), 0, 1.0

    def loss(self, output: Tensor, y: Tensor) -> Tensor:
        """Give the cross entropy, and remember it."""
        value = F.cross_entropy(output, y)
        self.seen.append(float(value.detach()))
        return value

    def schedule(self, step: int) -> float:
        """Give the factor of the rate."""
        if self.seen and step % self.every == 0:
            now = self.sign * sum(self.seen) / len(self.seen)
            self.seen.clear()
            self.waited = 0 if now < self.best else self.waited + 1
            self.best = min(self.best, now)
            if self.waited > self.patience:
                self.factor, self.waited = max(self.factor / 10, 0.01), 0
        return self.factor


def grouped(lr: float, *, mode: str = "min", **options: Any) -> Loop:
    """Tell shoppers apart, by SGD, with a rate that falls on a plateau."""
    plateau = Plateau(mode)
    return fit(lr, split=drawn.shoppers, batch=64, optimizer="sgd", loss=plateau.loss, schedule=plateau.schedule,
               **options)  # fmt: skip


@torch.no_grad()
def prior(network: Any, *, counts: bool = False) -> None:
    """Let the last biases begin at the logarithms of how common classes are; or at how often they are counted."""
    many = torch.bincount(drawn.alarms().y, minlength=len(drawn.COMMON)).float()
    network[-1].bias.copy_(many if counts else (many / many.sum()).log())


class Directions(nn.Module):
    """An encoder, of whose output only the direction counts, and a head; ``by_numpy`` leaves torch for that."""

    def __init__(self, inputs: int, outputs: int, width: int = 5, *, by_numpy: bool = False) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, width))
        self.head, self.by_numpy = nn.Sequential(nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, outputs)), by_numpy

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = self.encoder(x)
        if self.by_numpy:
            found = x.detach().numpy()
            x = torch.from_numpy(found / (np.linalg.norm(found, axis=1, keepdims=True) + 1e-6))
        else:
            x = F.normalize(x, dim=1, eps=1e-6)
        return self.head(3 * x)


class Hats(nn.Module):
    """Units that are 1 at their centre and fall to 0 at a distance of ``reach``, and a linear layer."""

    def __init__(self, inputs: int, outputs: int, units: int = 64, reach: float = 2.5) -> None:
        super().__init__()
        self.centres, self.reach = nn.Parameter(torch.randn(units, inputs)), reach
        self.act, self.last = nn.ReLU(), nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give a value."""
        apart = (x[:, None] - self.centres).square().sum(2).add(1e-6).sqrt()  # [N, U]
        return self.last(self.act(1 - apart / self.reach))
