"""Networks of the second convolutional programs.

Shape legend: N = images, C = channels, H = height, W = width.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm


def listener(act: Callable[[], nn.Module] = nn.Tanh, channels: int = 12) -> nn.Module:
    """Build a network for waves: two strided convolutions over time and two linear layers."""
    first, second = nn.Conv1d(1, channels, 7, 2, 3), nn.Conv1d(channels, channels, 5, 2, 2)
    head = [nn.Linear(12 * channels, 32), act(), nn.Linear(32, 5)]
    return nn.Sequential(first, act(), second, act(), nn.Flatten(), *head)


class Dilated(nn.Module):
    """A causal convolution with holes, its weights normalised, and a way around it."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.conv = weight_norm(nn.Conv1d(channels, channels, 3, dilation=dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return x + F.relu(self.conv(F.pad(x, (self.reach, 0))))


def temporal(channels: int = 16) -> nn.Module:
    """Build a temporal convolutional network that sees four periods of a wave."""
    body = [Dilated(channels, dilation) for dilation in (1, 2, 4, 8)]
    pool = [nn.AdaptiveAvgPool1d(1), nn.Flatten()]
    return nn.Sequential(nn.Conv1d(1, channels, 1), *body, *pool, nn.Linear(channels, 5))


class UNet(nn.Module):
    """Down, up, and across; ``prior`` is the share of pixels that the last bias expects."""

    def __init__(
        self, channels: int = 8, prior: float = 0.1, outputs: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        self.down, self.low = nn.Conv2d(1, channels, 3, padding=1), nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.up, self.join = (
            nn.ConvTranspose2d(2 * channels, channels, 2, 2),
            nn.Conv2d(2 * channels, channels, 3, 1, 1),
        )
        self.last, self.outputs = nn.Conv2d(channels, 1, 1), outputs
        with torch.no_grad():
            self.last.bias.fill_(torch.tensor(prior).logit())

    def forward(self, x: Tensor) -> Tensor:
        """Give a logit, or a value, for each pixel."""
        x = self.down(x).relu()
        low = self.low(F.max_pool2d(x, 2)).relu()
        return self.outputs(self.last(self.join(torch.cat([x, self.up(low)], 1)).relu()))


class Branch(nn.Module):
    """Two convolutions, of which a tenth is added to what comes in; or handed on alone."""

    def __init__(self, channels: int, *, around: bool) -> None:
        super().__init__()
        self.around = around
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1), nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Change it a little."""
        y = 0.1 * self.conv2(F.silu(self.conv1(x)))
        return x + y if self.around else y


def super_resolution(blocks: int = 8, *, around: bool = True) -> nn.Module:
    """Build what enlarges images elsewhere: scaled branches without any norm."""
    body = [Branch(6, around=around) for _ in range(blocks)]
    return nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), *body, nn.Conv2d(6, 1, 3, padding=1))


class Aggregated(nn.Module):
    """Blocks with norms and ways around them, each of which gets all that came before, averaged or added up."""

    def __init__(self, blocks: int = 13, channels: int = 8, *, adds: bool = False) -> None:
        super().__init__()
        self.adds = adds
        self.stem, self.head = nn.Conv2d(1, channels, 3, 2, 1), nn.Linear(channels * 25, 10)
        self.norms = nn.ModuleList(nn.GroupNorm(2, channels) for _ in range(blocks))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, 1, 1) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = total = self.stem(x)
        for i, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            total = total + x + conv(norm(x).relu())
            x = total if self.adds else total / (i + 2)
        return self.head(x.flatten(1))


def lenet(act: Callable[[], nn.Module] = nn.Tanh) -> nn.Module:
    """Build what read cheques in 1998, for images of 12 by 12."""
    body = [nn.Conv2d(1, 6, 5, padding=2), act(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), act(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(64, 48), act(), nn.Linear(48, 10))


class Next(nn.Module):
    """A block of a ConvNeXt: depthwise, norm, wide and narrow; the branch begins at next to nothing."""

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.spread, self.norm = nn.Conv2d(channels, channels, 5, 1, 2, groups=channels), nn.GroupNorm(1, channels)
        self.wide, self.narrow = nn.Conv2d(channels, 3 * channels, 1), nn.Conv2d(3 * channels, channels, 1)
        self.scale = nn.Parameter(torch.full((channels, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return x + self.scale * self.narrow(F.gelu(self.wide(self.norm(self.spread(x)))))


def patches(channels: int = 16, blocks: int = 2, start: float = 1e-4) -> nn.Module:
    """Build a small ConvNeXt."""
    body = [Next(channels, start) for _ in range(blocks)]
    head = [nn.GroupNorm(1, channels), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9 * channels, 10)]
    return nn.Sequential(nn.Conv2d(1, channels, 2, 2), *body, *head)


def in_network(colours: int = 3, outputs: int = 2) -> nn.Module:
    """Build a network in the network: convolutions of 1 by 1 between others, an average at the end."""
    widths = ((colours, 16, 3, 2), (16, 16, 1, 1), (16, 32, 3, 2), (32, 16, 1, 1))
    body = [layer for a, b, k, s in widths for layer in (nn.Conv2d(a, b, k, s, k // 2), nn.ReLU())]
    return nn.Sequential(*body, nn.Conv2d(16, outputs, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Bottleneck(nn.Module):
    """Narrow, over space, wide; the last norm begins at 0, so the block begins as nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        convs = (nn.Conv2d(channels, half, 1), nn.Conv2d(half, half, 3, 1, 1), nn.Conv2d(half, channels, 1))
        norms = (nn.BatchNorm2d(half), nn.BatchNorm2d(half), nn.BatchNorm2d(channels))
        nn.init.zeros_(norms[2].weight)
        self.branch = nn.Sequential(convs[0], norms[0], nn.ReLU(), convs[1], norms[1], nn.ReLU(), convs[2], norms[2])

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return (x + self.branch(x)).relu()


def bottlenecks(channels: int = 16, blocks: int = 2) -> nn.Module:
    """Build a ResNet of bottlenecks."""
    stem = [nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    head = [nn.AvgPool2d(2), nn.Flatten(), nn.Linear(9 * channels, 10)]
    return nn.Sequential(*stem, *(Bottleneck(channels) for _ in range(blocks)), *head)
