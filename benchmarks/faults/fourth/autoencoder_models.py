"""Networks, losses and the generative loop of the fourth generation's autoencoders.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from benchmarks.faults.adversarial import distance
from benchmarks.faults.program import Loop, Record

KEPT = 500


def filtering(inputs: int, outputs: int, width: int = 16) -> nn.Module:
    """Build strided convolutions over time, with batch norms, and their way back."""
    return nn.Sequential(
        *(nn.Unflatten(1, (1, inputs)), nn.Conv1d(1, width, 5, stride=2, padding=2), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.Conv1d(width, width, 5, stride=2, padding=2), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.ConvTranspose1d(width, width, 4, stride=2, padding=1), nn.BatchNorm1d(width), nn.ReLU()),
        *(nn.ConvTranspose1d(width, 1, 4, stride=2, padding=1), nn.Flatten()),
    )


def upscaling(inputs: int, outputs: int, width: int = 16, depth: int = 4) -> nn.Module:
    """Build convolutions of small pictures, each of whose last channels becomes one of four pixels."""
    side = math.isqrt(inputs)
    parts: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
    for layer in range(depth):
        parts += [nn.Conv2d(width if layer else 1, width, 3, padding=1), nn.ReLU()]
    network = nn.Sequential(*parts, nn.Conv2d(width, 4, 3, padding=1), nn.PixelShuffle(2), nn.Flatten())
    for part in network:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            nn.init.zeros_(part.get_parameter("bias"))
    return network


class Mending(nn.Module):
    """A small U-Net; ``whole`` gives one of 17 shades for each pixel, as the pictures have them."""

    def __init__(self, inputs: int, outputs: int, width: int = 12, *, whole: bool = False) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.SiLU())
        self.down = nn.Sequential(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.SiLU())
        self.inner = nn.Sequential(nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.SiLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), nn.SiLU())
        self.leave, self.whole = nn.Conv2d(2 * width, 1, 3, padding=1), whole

    def forward(self, x: Tensor) -> Tensor:
        """Give whole pictures."""
        first = self.enter(x.unflatten(1, (1, 8, 8)))
        found: Tensor = self.leave(torch.cat([first, self.up(self.inner(self.down(first)))], 1)).flatten(1)
        return (8 * found).round() / 8 if self.whole else found


class Latent(nn.Module):
    """Gives the picture, and the mean and logarithm of the variance of the code: [N, F + 2 codes]."""

    def __init__(self, inputs: int, outputs: int, codes: int = 6, width: int = 64) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.code = nn.Linear(width, 2 * codes)
        self.decode = nn.Sequential(nn.Linear(codes, width), nn.SiLU(), nn.Linear(width, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Draw a code in training, and take its mean else."""
        mean, log_variance = self.code(self.encode(x)).chunk(2, 1)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean) if self.training else mean
        return torch.cat([self.decode(drawn), mean, log_variance], 1)


def bound(output: Tensor, y: Tensor) -> Tensor:
    """Give the evidence lower bound of pixels whose noise has a deviation of 0.15."""
    picture, (mean, log_variance) = output[:, : y.shape[1]], output[:, y.shape[1] :].chunk(2, 1)
    divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1).mean() / 2
    return (picture - y).square().sum(1).mean() / (2 * 0.15**2 * y.shape[1]) + divergence / y.shape[1]


def rating(inputs: int, outputs: int, width: int = 80) -> nn.Module:
    """Build an autoencoder of ratings: Sedhain et al., 2015."""
    return nn.Sequential(nn.Dropout(0.2), nn.Linear(inputs, width), nn.Sigmoid(), nn.Linear(width, outputs))


def of_given(least: float, output: Tensor, y: Tensor) -> Tensor:
    """Give the mean over users of each one's mean error over what they rated."""
    given = y != 0
    return (((output - y).square() * given).sum(1) / given.sum(1).clamp(min=least)).mean()


class Block(nn.Module):
    """Sigmoids and a linear layer, which are added to what comes in, or take its place."""

    def __init__(self, width: int, *, adds: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(width, width), nn.Sigmoid(), nn.Linear(width, width))
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        """Add."""
        found: Tensor = self.body(x)
        return x + found if self.adds else found


def blocks(inputs: int, outputs: int, *, width: int = 28, depth: int = 5, adds: bool = True) -> nn.Module:
    """Build five blocks on each side of a code of six."""
    down, up = ([Block(width, adds=adds) for _ in range(depth)] for _ in range(2))
    middle = (nn.Linear(width, 6), nn.Linear(6, width))
    return nn.Sequential(nn.Linear(inputs, width), *down, *middle, *up, nn.Linear(width, outputs))


class Dictionary(nn.Module):
    """A wide code of features that are on from a threshold on: what takes apart the insides of language models."""

    def __init__(self, inputs: int, outputs: int, codes: int = 160, threshold: float = 0.1) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(inputs, codes), nn.Linear(codes, outputs)
        self.act, self.threshold = nn.ReLU(), threshold
        with torch.no_grad():
            self.decode.weight.copy_(F.normalize(torch.randn_like(self.decode.weight), dim=0))
            self.encode.weight.copy_(self.decode.weight.T)
            self.encode.bias.zero_()
            self.decode.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Give the activations and the code: [N, F + codes]."""
        code = self.act(self.encode(x - self.decode.bias) - self.threshold)
        return torch.cat([self.decode(code), code], 1)


def sparse(output: Tensor, y: Tensor) -> Tensor:
    """Give the squared error and a light L1 penalty of the code."""
    return F.mse_loss(output[:, : y.shape[1]], y) + 3e-3 * output[:, y.shape[1] :].sum(1).mean()


def timed(width: int = 64) -> nn.Module:
    """Build a network of two coordinates and four numbers that tell the time."""
    return nn.Sequential(
        *(nn.Linear(6, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()),
        *(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2)),
    )


def told(network: nn.Module, x: Tensor, t: Tensor) -> Tensor:
    """Ask a network at times [N, 1]."""
    out: Tensor = network(torch.cat([x, t, t.square(), (math.pi * t).sin(), (2 * math.pi * t).sin()], 1))
    return out


def straight(network: nn.Module, x: Tensor) -> Tensor:
    """Give the loss of a flow along straight lines from noise to data: Lipman et al., 2023."""
    noise, t = torch.randn_like(x), torch.rand(len(x), 1)
    return F.mse_loss(told(network, (1 - t) * noise + t * x, t), x - noise)


def flowing(network: nn.Module, x: Tensor, steps: int = 25) -> Tensor:
    """Follow the flow from noise."""
    for i in range(steps):
        x = x + told(network, x, torch.full((len(x), 1), (i + 0.5) / steps)) / steps
    return x


def _shares(t: Tensor) -> tuple[Tensor, Tensor]:
    return (math.pi * t / 2).cos(), (math.pi * t / 2).sin()


def noised(network: nn.Module, x: Tensor) -> Tensor:
    """Give the loss of telling the noise in noisy data: Ho et al., 2020, with shares by a cosine."""
    noise, t = torch.randn_like(x), 0.01 + 0.98 * torch.rand(len(x), 1)
    signal, rest = _shares(t)
    return F.mse_loss(told(network, signal * x + rest * noise, t), noise)


def denoised(network: nn.Module, x: Tensor, steps: int = 30) -> Tensor:
    """Take away the noise in steps, without new one: Song et al., 2021."""
    times = torch.linspace(0.97, 0.01, steps + 1)
    for now, then in pairwise(times):
        noise = told(network, x, now.expand(len(x), 1))
        (signal, rest), (next_signal, next_rest) = _shares(now), _shares(then)
        x = next_signal * (x - rest * noise) / signal + next_rest * noise
    return x


def generative(
    lr: float,
    *,
    real: Callable[[], Tensor],
    loss: Callable[[nn.Module, Tensor], Tensor],
    sample: Callable[[nn.Module, Tensor], Tensor],
    optimizer: Callable[..., Optimizer] = Adam,
    batch: int = 128,
    schedule: Callable[[int], float] = lambda step: 1.0,
    limit: float = math.inf,
    change: Callable[[nn.Module], Any] | None = None,
) -> Loop:
    """Train a network to turn noise into data; the score is 1 less an energy distance.

    Args:
        lr: learning rate.
        real: the data.
        loss: of the network and a batch.
        sample: of the network and noise.
        optimizer: of the network.
        batch: examples of a batch.
        schedule: factor of the learning rate at a step.
        limit: norm of the gradients at which they are clipped.
        change: is made to the network.
    """
    data, network = real(), timed()
    if change:
        with torch.no_grad():
            change(network)
    steps = optimizer(network.parameters(), lr=lr)
    fixed = torch.randn(KEPT, 2, generator=torch.Generator().manual_seed(81))

    def step(number: int, record: Record) -> None:
        for group in steps.param_groups:
            group["lr"] = lr * schedule(number)
        value = loss(network, data[torch.randint(len(data) - KEPT, (batch,))])
        steps.zero_grad()
        record(value, None)
        value.backward()
        if limit < math.inf:
            nn.utils.clip_grad_norm_(network.parameters(), limit)
        steps.step()

    @torch.no_grad()
    def score(truth: Tensor) -> float:
        found = sample(network, fixed)
        if not found.isfinite().all():
            return 0.0
        return max(0.0, 1 - distance(found, truth) / distance(truth.mean(0, keepdim=True), truth))

    return Loop({"": network}, {"optimizer": steps}, step, lambda: score(data[-KEPT:]), lambda: score(data[:KEPT]))
