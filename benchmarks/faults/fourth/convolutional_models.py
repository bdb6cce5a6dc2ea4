"""Networks, losses and changes of the fourth generation's convolutional programs.

Shape legend: N = images, C = channels, H = height, W = width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.planting import layers


def scanner(channels: int = 6) -> nn.Module:
    """Build two convolutions and two linear layers, with tanh."""
    body = [nn.Conv2d(1, channels, 3, padding=1), nn.Tanh(), nn.Conv2d(channels, 16, 3, padding=1), nn.Tanh()]
    body += [nn.MaxPool2d(2), nn.Flatten(), nn.Linear(576, 32), nn.Tanh()]
    return nn.Sequential(*body, nn.Linear(32, 4))


def nowcast(frames: int = 3, channels: int = 16) -> nn.Module:
    """Build three convolutions of 5 by 5."""
    body = [nn.Conv2d(frames, channels, 5, padding=2), nn.LeakyReLU(0.1)]
    body += [nn.Conv2d(channels, channels, 5, padding=2), nn.LeakyReLU(0.1)]
    return nn.Sequential(*body, nn.Conv2d(channels, 1, 5, padding=2))


def ranger(channels: int = 12) -> nn.Module:
    """Build convolutions that see ever farther, for a value at each place."""
    body: list[nn.Module] = []
    for i, dilation in enumerate((1, 2, 3)):
        body += [nn.Conv2d(channels if i else 1, channels, 3, 1, dilation, dilation), nn.BatchNorm2d(channels)]
        body.append(nn.ReLU())
    return nn.Sequential(*body, nn.Conv2d(channels, 1, 1))


def logarithmic(output: Tensor, y: Tensor, *, masked: bool = True) -> Tensor:
    """Compare with the logarithm of a distance; ``masked`` leaves out what the sensor did not see."""
    return F.mse_loss(output[y > 0], y[y > 0].log()) if masked else F.mse_loss(output, y.log())


def deep(
    act: Callable[[], nn.Module] = nn.ReLU, widths: tuple[int, ...] = (12, 12, 24, 24), colours: int = 1, area: int = 4,
    outputs: int = 10,
) -> nn.Module:  # fmt: skip
    """Build pairs of convolutions with a pooling after each pair of widths, and two linear layers."""
    body: list[nn.Module] = []
    for i, width in enumerate(widths):
        body += [nn.Conv2d(widths[i - 1] if i else colours, width, 3, padding=1), act()]
        if i % 2 and i < 4:
            body.append(nn.MaxPool2d(2))
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(area * widths[-1], 32), act(), nn.Linear(32, outputs))


@torch.no_grad()
def he(network: nn.Module) -> None:
    """Draw weights as He et al., 2015, do; biases begin at 0."""
    for layer in layers(network):
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def as_alexnet(network: nn.Module) -> None:
    """Draw weights with a standard deviation of 0.01, as Krizhevsky et al., 2012, did for fewer layers."""
    for layer in layers(network):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def averages(network: nn.Module) -> None:
    """Let each unit begin as the mean of what comes in."""
    for layer in layers(network):
        nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
        nn.init.zeros_(layer.bias)


def shaken(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Move images by a pixel at most, and add noise."""
    down, across = torch.randint(3, (2,)).tolist()
    x = F.pad(x, (1, 1, 1, 1), value=-1.0)[..., down : down + 8, across : across + 8]
    return x + 0.1 * torch.randn_like(x), y


def unconverted(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give the images of some steps as bytes from 0 to 255, as one shard holds them."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x, y = shaken(step, x, y)
        return (127.5 * (x + 1) if first <= step <= last else x), y

    return change


class Basic(nn.Module):
    """Two convolutions with norms, and a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return F.relu(x + self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))))


def land(channels: int = 12, blocks: int = 2) -> nn.Module:
    """Build a small ResNet for pictures in colour."""
    stem = [nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)]
    return nn.Sequential(*stem, *(Basic(channels) for _ in range(blocks)), *head)


def triangle(half: int, most: float = 1.0, least: float = 0.1) -> Callable[[int], float]:
    """Let the learning rate rise from the least to the most and fall again, each in so many steps: Smith, 2017."""
    return lambda step: least + (most - least) * (1 - abs((step - 1) % (2 * half) / half - 1))


def listener(channels: int = 12) -> nn.Module:
    """Build three strided convolutions over time with norms, and a mean over it."""
    body: list[nn.Module] = []
    for into, out, size in ((1, channels, 7), (channels, 2 * channels, 5), (2 * channels, 2 * channels, 3)):
        body += [nn.Conv1d(into, out, size, 2, size // 2), nn.BatchNorm1d(out), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2 * channels, 6))


def summed(workers: int) -> Callable[[int, nn.Module], None]:
    """Add the gradients of so many workers, whose data are alike, without a division by their number."""

    @torch.no_grad()
    def change(step: int, network: nn.Module) -> None:
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad *= workers

    return change


class Letters(nn.Module):
    """Convolutions over letters of three sizes, the largest of each over time: Kim, 2014."""

    def __init__(self, letters: int = 16, channels: int = 16, outputs: int = 5) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(letters, channels, size) for size in (2, 3, 4))
        self.dropout, self.last = nn.Dropout(0.3), nn.Linear(3 * channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        return self.last(self.dropout(torch.cat([F.relu(conv(x)).amax(2) for conv in self.convs], 1)))


def inspector(channels: int = 12) -> nn.Module:
    """Build three convolutions with group norms and GELU."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, 2 * channels), (2 * channels, 2 * channels)):
        body += [nn.Conv2d(into, out, 3, 2, 1), nn.GroupNorm(4, out), nn.GELU()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(8 * channels, 4))


class Above(nn.Module):
    """A convolution, of which counts what is above a limit."""

    def __init__(self, into: int, out: int, limit: float) -> None:
        super().__init__()
        self.conv, self.act, self.limit = nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), limit

    def forward(self, x: Tensor) -> Tensor:
        """Give what is above."""
        return self.act(self.conv(x) - self.limit)


def telescope(channels: int = 12, limit: float = 0.05) -> nn.Module:
    """Build three layers that pass over faint noise."""
    body = [Above(1, channels, limit), nn.MaxPool2d(2), Above(channels, 16, limit), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 4))
