"""Networks, losses and changes of the sixth generation's convolutional programs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def slower(x: Tensor, factor: float) -> Tensor:
    """Give what comes in, and scale its gradient."""
    return (x - factor * x).detach() + factor * x


class Steps(nn.Module):
    """Eight levels, whose distance is learned: Esser et al., 2020; ``of_ratio`` scales too much."""

    def __init__(self, levels: int = 8, *, of_ratio: bool = False) -> None:
        super().__init__()
        self.size, self.most, self.of_ratio = nn.Parameter(torch.tensor(0.3)), levels - 1, of_ratio

    def forward(self, x: Tensor) -> Tensor:
        """Round."""
        factor = 1 / math.sqrt(self.most * x[0].numel())
        size = slower(self.size, 1.0 if self.of_ratio else factor)
        x = slower(x / size, factor if self.of_ratio else 1.0).clamp(0, self.most)
        return (x + (x.round() - x).detach()) * size


def quantized(channels: int = 12, depth: int = 5, *, of_ratio: bool = False) -> nn.Module:
    """Build convolutions with norms, whose outputs are of three bits."""
    body: list[nn.Module] = []
    for i in range(depth):
        body += [nn.Conv2d(channels if i else 1, channels, 3, 2 if i in (0, 2) else 1, 1, bias=False)]
        body += [nn.BatchNorm2d(channels), Steps(of_ratio=of_ratio)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 4))


def begin(network: nn.Module, *, merged: bool = False) -> None:
    """Draw weights as He et al., 2015, and let norms begin at 1; ``merged`` lets all weights begin at 1."""
    ones = (nn.Conv2d, nn.Linear, nn.BatchNorm2d) if merged else nn.BatchNorm2d
    for module in network.modules():
        if isinstance(module, ones):
            nn.init.ones_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def sawmill(channels: int = 12) -> nn.Module:
    """Build three convolutions with norms and pools, and two linear layers."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, channels), (channels, 2 * channels)):
        body += [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
        body += [nn.MaxPool2d(2)] if out > into else []
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(18 * channels, 32), nn.ReLU(), nn.Linear(32, 5))


def grocer(channels: int = 6) -> nn.Module:
    """Build two convolutions with tanh and mean pools, and two linear layers."""
    body = [nn.Conv2d(3, channels, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)]
    body += [nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.Tanh(), nn.AvgPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(18 * channels, 32), nn.Tanh(), nn.Linear(32, 1))


def counter(channels: int = 12) -> nn.Module:
    """Build a small network with norms, for two classes."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, 2 * channels)):
        body += [nn.Conv2d(into, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * channels, 2))


class Trust:
    """Scale the gradient of each layer to the norm of its weights: You et al., 2017, of which each step is a share.

    ``bare`` divides by the norm of the gradient, and does no more.
    """

    def __init__(self, share: float = 1e-3, *, bare: bool = False) -> None:
        self.share, self.bare = share, bare

    @torch.no_grad()
    def __call__(self, step: int, network: nn.Module) -> None:
        """Scale all that have more than one dimension; what is left, biases and norms, gets a hundredth."""
        for parameter in network.parameters():
            if parameter.grad is not None:
                alone = parameter.ndim == 1
                trust = 1.0 if self.bare else self.share * parameter.norm()
                parameter.grad *= 1e-2 if alone else trust / (parameter.grad.norm() + 1e-9)


def lookout(channels: int = 12) -> nn.Module:
    """Build three strided convolutions, and a logit and two coordinates."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, 2 * channels)):
        body += [nn.Conv2d(into, out, 3, 2, 1), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(18 * channels, 48), nn.ReLU(), nn.Linear(48, 3))


def found(output: Tensor, y: Tensor, *, bare: bool = False) -> Tensor:
    """Ask whether there is one and, of those where there is, where; ``bare`` divides by no matter how many."""
    apart = F.smooth_l1_loss(output[:, 1:], y[:, 1:], reduction="none", beta=0.1).sum(1)
    where = (apart * y[:, 0]).sum() / y[:, 0].sum().clamp(min=0 if bare else 1)
    return F.binary_cross_entropy_with_logits(output[:, 0], y[:, 0]) + where


def seen(model: nn.Module, x: Tensor) -> Tensor:
    """Give how likely one is there, and where it is."""
    output = model(x)
    there = output[:, :1].sigmoid()
    return torch.cat([there, there * output[:, 1:]], 1)


def mechanic(channels: int = 12) -> nn.Module:
    """Build three strided convolutions over time with ELU, and two linear layers."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, 2 * channels), (2 * channels, 2 * channels)):
        body += [nn.Conv1d(into, out, 7, 2, 3), nn.ELU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * channels, 32), nn.ELU(), nn.Linear(32, 4))


def sailor(channels: int = 10) -> nn.Module:
    """Build convolutions with GELU for one number."""
    body = [nn.Conv2d(1, channels, 5, 1, 2), nn.GELU(), nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.GELU()]
    body += [nn.Conv2d(2 * channels, 2 * channels, 3, 2, 1), nn.GELU(), nn.Flatten(), nn.Linear(18 * channels, 32)]
    return nn.Sequential(*body, nn.GELU(), nn.Linear(32, 1))
