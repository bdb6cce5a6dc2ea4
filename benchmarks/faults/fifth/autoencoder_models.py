"""Networks, losses and starts of the fifth generation's autoencoders.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adadelta, Optimizer

from benchmarks.faults.data import Split
from benchmarks.faults.loops import score_of
from benchmarks.faults.planting import layers
from benchmarks.faults.program import Loop, Record
from benchmarks.faults.second.autoencoder_models import stack


def clouds(inputs: int, outputs: int, width: int = 8) -> nn.Module:
    """Build strided convolutions of maps, with batch norms, and their way back."""
    side = math.isqrt(inputs)
    return nn.Sequential(
        *(nn.Unflatten(1, (1, side, side)), nn.Conv2d(1, width, 3, stride=2, padding=1)),
        *(nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)),
        *(nn.BatchNorm2d(2 * width), nn.ReLU(), nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1)),
        *(nn.BatchNorm2d(width), nn.ReLU(), nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1), nn.Flatten()),
    )


def rolled(inputs: int, outputs: int, share: float = 0.11, *, everywhere: bool = False) -> nn.Module:
    """Build an autoencoder of keys, whose last biases say how often a key is down; or all biases do, ``everywhere``."""
    network = stack(inputs, outputs, sizes=(96, 24, 96))
    prior = math.log(share / (1 - share))
    for layer in layers(network) if everywhere else layers(network)[-1:]:
        nn.init.constant_(layer.bias, prior)
    return network


class Scaled(nn.Module):
    """What comes in and a tenth of a branch: Lim et al., 2017; or ten times the branch, if that ``divides``."""

    def __init__(self, width: int, *, divides: bool) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.divides = divides

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        found: Tensor = self.branch(x)
        return x + (found / 0.1 if self.divides else found * 0.1)


def scaling(inputs: int, outputs: int, *, width: int = 40, depth: int = 5, divides: bool = False) -> nn.Module:
    """Build some blocks on each side of a code of ten."""
    down, up = ([Scaled(width, divides=divides) for _ in range(depth)] for _ in range(2))
    middle = (nn.Linear(width, 10), nn.Linear(10, width))
    return nn.Sequential(nn.Linear(inputs, width), *down, *middle, *up, nn.Linear(width, outputs))


class Topical(nn.Module):
    """Gives logits of words, and mean and deviation of the code: [N, F + 2 codes]. Liang et al., 2018."""

    def __init__(
        self, inputs: int, outputs: int, codes: int = 8, *, logarithm: Callable[[Tensor], Tensor] = torch.log1p
    ) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, 64), nn.Tanh(), nn.Linear(64, 2 * codes))
        self.decode = nn.Sequential(nn.Linear(codes, 64), nn.Tanh(), nn.Linear(64, outputs))
        self.logarithm = logarithm

    def forward(self, x: Tensor) -> Tensor:
        """Draw a code in training, and take its mean else."""
        x = self.logarithm(x)
        mean, deviation = self.encode(x - x.mean(1, keepdim=True)).chunk(2, 1)
        deviation = F.softplus(deviation)
        drawn = mean + deviation * torch.randn_like(mean) if self.training else mean
        return torch.cat([self.decode(drawn), mean, deviation], 1)


def told(output: Tensor, y: Tensor) -> Tensor:
    """Give the cross entropy of the words, and a light weight on the divergence."""
    mean, deviation = output[:, y.shape[1] :].chunk(2, 1)
    divergence = (mean.square() + deviation.square() - 1).sum(1).mean() / 2 - deviation.log().sum(1).mean()
    return -(y * output[:, : y.shape[1]].log_softmax(1)).sum(1).mean() / y.shape[1] + 0.01 * divergence


def shares(network: nn.Module, x: Tensor) -> Tensor:
    """Give what the targets of words are to be."""
    out: Tensor = network(x)[:, : x.shape[1]]
    return x.shape[1] * out.softmax(1)


class Swinging(nn.Module):
    """An encoder and a decoder; ``as_data`` hands the code on by ``.data``."""

    def __init__(self, inputs: int, outputs: int, codes: int = 5, *, as_data: bool = False) -> None:
        super().__init__()
        self.encoder, self.decoder = (
            stack(before, after, sizes=(64, 48), act=nn.GELU) for before, after in ((inputs, codes), (codes, outputs))
        )
        self.as_data = as_data

    def forward(self, x: Tensor) -> Tensor:
        """Give what comes back."""
        code = self.encoder(x)
        out: Tensor = self.decoder(code.data if self.as_data else code)
        return out


def he(network: nn.Module) -> None:
    """Draw weights for ReLU, and start biases at zero."""
    for layer in layers(network):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def as_siren(network: nn.Module, frequency: float = 30.0) -> None:
    """Draw weights as for a network of sines, which multiplies by its frequency afterwards: Sitzmann et al., 2020."""
    for layer in layers(network):
        bound = math.sqrt(6 / layer.in_features) / frequency
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(layer.bias)


def by_delta(
    lr: float, *, split: Callable[[], Split], optimizer: Callable[..., Optimizer] = Adadelta, batch: int = 64
) -> Loop:
    """Learn an autoencoder by Adadelta, whose usual learning rate is 1, or by what has taken its place.

    Args:
        lr: learning rate.
        split: data.
        optimizer: of the network.
        batch: examples of a batch.
    """
    of = split()
    network = stack(of.x.shape[1], of.y.shape[1], sizes=(40, 9, 40), act=nn.LeakyReLU)
    chosen = optimizer(network.parameters(), lr=lr)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(of.x), (batch,))
        loss = F.mse_loss(network(of.x[at]), of.y[at])
        chosen.zero_grad()
        record(loss, None)
        loss.backward()
        chosen.step()

    def score(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: network(x), [network], y)

    return Loop(
        {"": network},
        {"optimizer": chosen},
        step,
        lambda: score(of.x_test, of.y_test),
        lambda: score(of.x[:512], of.y[:512]),
    )


def exponential(each: int, factor: float, step: int) -> float:
    """Multiply the learning rate after so many steps, each time."""
    return factor ** (step // each)
