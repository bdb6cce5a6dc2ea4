"""Networks and loops of the third generation's convolutional programs.

Shape legend: N = images, C = channels, H = height, W = width.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split
from benchmarks.faults.loops import score_of
from benchmarks.faults.program import Loop, Record


class Contrast(nn.Module):
    """A convolution whose channels are compared with their mean at a place, or, if ``least``, with the largest."""

    def __init__(self, into: int, out: int, *, least: bool) -> None:
        super().__init__()
        self.conv, self.act, self.least = nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), least

    def forward(self, x: Tensor) -> Tensor:
        """Give what is above."""
        x = self.conv(x)
        return self.act(x - (x.amax(1, keepdim=True) if self.least else x.mean(1, keepdim=True)))


def contrasts(channels: int = 10, *, least: bool = False) -> nn.Module:
    """Build three layers that do not see how bright it is."""
    body = [Contrast(1, channels, least=False), nn.MaxPool2d(2), Contrast(channels, channels, least=least)]
    body += [nn.MaxPool2d(2), Contrast(channels, channels, least=least)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(9 * channels, 4))


class Periodic(nn.Module):
    """A convolution over time, and sines of it."""

    def __init__(self, into: int, out: int, frequency: float, stride: int, *, divides: bool) -> None:
        super().__init__()
        self.conv, self.frequency = nn.Conv1d(into, out, 5, stride, 2), frequency
        if divides:
            bound = math.sqrt(6 / (5 * into)) / frequency
            nn.init.uniform_(self.conv.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Give sines."""
        return (self.frequency * self.conv(x)).sin()


def periodic(channels: int = 10, frequency: float = 20.0, *, divides: bool = True) -> nn.Module:
    """Build six layers of sines; ``divides`` draws weights as is right for the frequency."""
    strides = (2, 1, 2, 1, 2, 1)
    body = [
        Periodic(channels if i else 1, channels, frequency, stride, divides=divides) for i, stride in enumerate(strides)
    ]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * channels, 4))


def example() -> nn.Module:
    """Build what an example of PyTorch learns digits by, smaller."""
    body = [nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 24, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(96, 48), nn.ReLU(), nn.Dropout(0.5), nn.Linear(48, 10))


def by_adadelta(lr: float, *, split: Callable[[], Split], every: int = 120) -> Loop:
    """Learn by Adadelta, at a rate of about 1, which falls a little now and then."""
    network, of = example(), split()
    optimizer = torch.optim.Adadelta(network.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, every, gamma=0.7)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(of.x), (32,))
        optimizer.zero_grad()
        loss = F.cross_entropy(network(of.x[at]), of.y[at])
        record(loss, None)
        loss.backward()
        optimizer.step()
        scheduler.step()

    def scored(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: network(x), [network], y)

    models: dict[str, nn.Module] = {"": network}
    return Loop(
        models,
        {"optimizer": optimizer},
        step,
        lambda: scored(of.x_test, of.y_test),
        lambda: scored(of.x[:512], of.y[:512]),
    )


class Squeezed(nn.Module):
    """A convolution with a norm, whose channels are weighted by what the image is like, and a way around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        self.weigh = nn.Sequential(nn.Linear(channels, 4), nn.SiLU(), nn.Linear(4, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        found = F.silu(self.norm(self.conv(x)))
        return x + found * self.weigh(found.mean((2, 3)))[..., None, None]


def squeezed(channels: int = 14, blocks: int = 2) -> nn.Module:
    """Build blocks of those between two norms."""
    stem = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU()]
    head = [nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.SiLU(), nn.Flatten()]
    return nn.Sequential(*stem, *(Squeezed(channels) for _ in range(blocks)), *head, nn.Linear(16 * channels, 6))


@torch.no_grad()
def nothing(network: nn.Module) -> None:
    """Let all norms begin at zero, as only those that end a branch may."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)


def gratings(channels: int = 12, outputs: int = 6) -> nn.Module:
    """Build a wide first layer, its strongest places, and two layers of 1 by 1."""
    body = [nn.Conv2d(1, channels, 5), nn.ELU(), nn.MaxPool2d(3), nn.Conv2d(channels, 24, 1), nn.ELU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(96, outputs))


def counter(channels: int = 10) -> nn.Module:
    """Build a map whose mean says how many there are."""
    body = [
        nn.Conv2d(1, channels, 3),
        nn.Tanh(),
        nn.Conv2d(channels, channels, 3),
        nn.Tanh(),
        nn.Conv2d(channels, 8, 3),
    ]
    return nn.Sequential(*body, nn.Tanh(), nn.AvgPool2d(6), nn.Flatten(), nn.Linear(8, 1))


def late(by: int) -> Callable[[int, nn.Module], None]:
    """Use the gradients of so many steps ago, as from a worker that is behind."""
    waiting: deque[list[Tensor]] = deque()

    def swap(step: int, network: nn.Module) -> None:
        parameters = list(network.parameters())
        waiting.append([p.grad.clone() for p in parameters if p.grad is not None])
        known = waiting.popleft() if len(waiting) > by else [torch.zeros_like(p) for p in parameters]
        for parameter, gradient in zip(parameters, known, strict=True):
            parameter.grad = gradient

    return swap
