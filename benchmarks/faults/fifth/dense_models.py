"""Networks and changes of the fifth generation's dense programs.

Shape legend: N = examples, F = features.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.planting import layers


class Hash(nn.Module):
    """Codes of some bits, by a tanh that grows steeper in training, and a head: Cao et al., 2017.

    Args:
        inputs: features.
        outputs: classes.
        bits: of a code.
        every: calls after which it grows steeper; an epoch has 40.
    """

    def __init__(self, inputs: int, outputs: int, bits: int = 16, every: int = 40) -> None:
        super().__init__()
        self.first, self.act, self.code = nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, bits)
        self.squash, self.head = nn.Tanh(), nn.Linear(bits, outputs)
        self.every, self.calls = every, 0

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        self.calls += self.training
        return self.head(self.squash(1.1 ** (self.calls // self.every) * self.code(self.act(self.first(x)))))


class Rising(nn.Module):
    """A layer whose weights are all positive, by a softplus; or, with a ``sign`` of -1, all negative."""

    def __init__(self, inputs: int, outputs: int, sign: float) -> None:
        super().__init__()
        self.raw = nn.Parameter((2 / inputs * torch.rand(outputs, inputs)).clamp(min=1e-4).expm1().log())
        self.bias, self.sign = nn.Parameter(-torch.rand(outputs)), sign

    def forward(self, x: Tensor) -> Tensor:
        """Multiply and add."""
        return F.linear(x, self.sign * F.softplus(self.raw), self.bias)


def monotone(inputs: int, outputs: int, width: int = 48, sign: float = 1.0) -> nn.Module:
    """Build a network that rises with each input."""
    hidden = [Rising(inputs, width, sign), nn.ReLU(), Rising(width, width, sign), nn.ReLU()]
    return nn.Sequential(*hidden, Rising(width, outputs, 1.0))


class Swish(nn.Module):
    """A swish that somebody wrote himself; without ``times``, its factor is lost."""

    def __init__(self, *, times: bool = True) -> None:
        super().__init__()
        self.gate, self.times = nn.Sigmoid(), times

    def forward(self, x: Tensor) -> Tensor:
        """Squash."""
        return x * self.gate(x) if self.times else self.gate(x)


@torch.no_grad()
def he(network: nn.Module) -> None:
    """Draw weights as He et al., 2015, do, but for the last; biases begin at 0."""
    for layer in layers(network)[:-1]:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class Noisy(nn.Module):
    """A narrow layer with noise, between two parts; ``reparametrized`` lets the gradient through what is drawn."""

    def __init__(self, inputs: int, outputs: int, width: int = 6, *, reparametrized: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, width))
        self.decoder = nn.Sequential(nn.Linear(width, 48), nn.ReLU(), nn.Linear(48, outputs))
        self.reparametrized = reparametrized

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        mean = self.encoder(x)
        law = torch.distributions.Normal(mean, 0.3)
        if not self.training:
            return self.decoder(mean)
        return self.decoder(law.rsample() if self.reparametrized else law.sample())


@torch.no_grad()
def root_of_inputs(network: nn.Module) -> None:
    """Draw weights with a deviation of the root of the number of inputs, by which one ought to divide."""
    for layer in layers(network):
        nn.init.normal_(layer.weight, std=math.sqrt(layer.in_features))
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def weight_for_bias(network: nn.Module) -> None:
    """Let weights begin at zero and draw biases, where the reverse was meant."""
    for layer in layers(network):
        nn.init.zeros_(layer.weight)
        nn.init.normal_(layer.bias, std=0.1)


def percentage(output: Tensor, y: Tensor) -> Tensor:
    """Give the mean absolute percentage error."""
    return ((output - y).abs() / y.abs()).mean()
