"""Networks, losses and a loop of the sixth generation's autoencoders.

Shape legend: N = examples, F = features, K = factors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import ReduceLROnPlateau

from benchmarks.faults.planting import layers
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.dense_models import fit


class Uncertain(nn.Module):
    """A code with noise, whose deviation ``positive`` gives: [N, F + 2 codes] of picture, mean and deviation."""

    def __init__(self, inputs: int, outputs: int, codes: int = 4, *, positive: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 48), nn.ReLU(), nn.Linear(48, 2 * codes))
        self.decode = nn.Sequential(nn.Linear(codes, 48), nn.ReLU(), nn.Linear(48, outputs))
        self.positive = positive

    def forward(self, x: Tensor) -> Tensor:
        """Give all three."""
        mean, raw = self.encode(x).chunk(2, 1)
        deviation = self.positive(raw)
        code = mean + deviation * torch.randn_like(mean) if self.training else mean
        return torch.cat([self.decode(code), mean, deviation], 1)


def evidence(output: Tensor, y: Tensor) -> Tensor:
    """Give the squared error, and how far the code is from normal: Kingma & Welling, 2014."""
    picture, (mean, deviation) = output[:, : y.shape[1]], output[:, y.shape[1] :].chunk(2, 1)
    away = (mean.square() + deviation.square() - 1) / 2 - deviation.log()
    return F.mse_loss(picture, y) + 0.02 * away.sum(1).mean()


def picture(network: nn.Module, x: Tensor) -> Tensor:
    """Give what of the output is the picture."""
    found: Tensor = network(x)[:, : x.shape[1]]
    return found


def buying(inputs: int, outputs: int, *, logarithm: bool = False, codes: int = 12) -> nn.Module:
    """Build a code of ReLU units; ``logarithm`` puts a log_softmax before them."""
    into = [nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, codes), *([nn.LogSoftmax(dim=1)] if logarithm else [])]
    return nn.Sequential(*into, nn.ReLU(), nn.Linear(codes, 64), nn.ReLU(), nn.Linear(64, outputs))


class Categorical(nn.Module):
    """A code of some choices: Jang et al., 2017; ``hard`` takes the likeliest one in training too."""

    def __init__(self, inputs: int, outputs: int, factors: int = 4, kinds: int = 6, *, hard: bool = False) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, factors * kinds))
        self.decode = nn.Sequential(nn.Linear(factors * kinds, 64), nn.ReLU(), nn.Linear(64, outputs))
        self.shape, self.hard = (factors, kinds), hard

    def forward(self, x: Tensor) -> Tensor:
        """Choose, and give what belongs to it."""
        logits = self.encode(x).unflatten(1, self.shape)
        if self.hard or not self.training:
            code = F.one_hot(logits.argmax(2), self.shape[1]).float()
        else:
            code = F.gumbel_softmax(logits, tau=1.0, dim=2)
        decoded: Tensor = self.decode(code.flatten(1))
        return decoded


def spots(inputs: int, outputs: int, codes: int = 8) -> nn.Module:
    """Build strided convolutions to a code, and transposed ones back."""
    down = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU()]
    down += [nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, codes)]
    up = [nn.Linear(codes, 64), nn.ReLU(), nn.Unflatten(1, (16, 2, 2))]
    up += [nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*down, *up, nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1), nn.Flatten())


def he_uniform(network: nn.Module) -> None:
    """Draw weights as it is meant for ReLU units."""
    for layer in layers(network):
        nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def uniform(network: nn.Module) -> None:
    """Draw weights by ``uniform_`` as it is: between 0 and 1."""
    for layer in layers(network):
        nn.init.uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


def on_plateau(lr: float, *, mode: Any = "min", patience: int = 10, **rest: Any) -> Loop:
    """Halve the rate whenever a running mean of the loss got no better for some steps."""
    factor, mean = SGD([nn.Parameter(torch.zeros(()))], lr=1.0), [0.0]
    loop = fit(lr, schedule=lambda _: float(factor.param_groups[0]["lr"]), **rest)
    plateau = ReduceLROnPlateau(factor, mode=mode, factor=0.5, patience=patience)

    def step(number: int, record: Record) -> None:
        def seen(loss: Tensor, optimizer: str | None) -> None:
            mean[0] = float(loss.detach()) if number == 1 else 0.9 * mean[0] + 0.1 * float(loss.detach())
            record(loss, optimizer)

        loop.step(number, seen)
        plateau.step(mean[0])

    return Loop(loop.models, loop.optimizers, step, loop.score, loop.train_score)
