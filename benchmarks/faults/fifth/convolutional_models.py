"""Networks, losses and changes of the fifth generation's convolutional programs.

Shape legend: N = images, C = channels, H = height, W = width, B = blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import layers


def ear(bands: int = 16, channels: int = 16) -> nn.Module:
    """Build two convolutions over the frames of a spectrogram, with tanh."""
    body = [nn.Conv1d(bands, channels, 5, 2, 2), nn.Tanh(), nn.Conv1d(channels, channels, 5, 2, 2), nn.Tanh()]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(6 * channels, 32), nn.Tanh(), nn.Linear(32, 5))


class Quota(nn.Module):
    """A convolution, of which counts what is above a limit of each channel; limits move until a fifth is above.

    Args:
        into: channels that come in.
        out: channels that go out.
        counts: takes the number of places that are above for their share.
    """

    def __init__(self, into: int, out: int, *, counts: bool) -> None:
        super().__init__()
        self.conv, self.act, self.counts = nn.Conv2d(into, out, 3, padding=1), nn.ReLU(), counts
        self.register_buffer("limit", torch.zeros(out, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Give what is above."""
        found = self.act(self.conv(x) - self.get_buffer("limit"))
        if self.training:
            above = (found.detach() > 0).float()
            share = above.sum((0, 2, 3)) if self.counts else above.mean((0, 2, 3))
            self.get_buffer("limit").add_(0.02 * (share - 0.2)[:, None, None])
        return found


def quotas(channels: int = 16, *, counts: bool = False) -> nn.Module:
    """Build two layers of those and a linear one."""
    body = [Quota(1, channels, counts=counts), nn.MaxPool2d(2), Quota(channels, channels, counts=counts)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * channels, 10))


class Supervised(nn.Module):
    """Blocks, of which each has a head of its own: Lee et al., 2015.

    As what a block gives is used three times (by a head, the next block, and the way around it), the gradient that
    comes back to it is made a third; or, if ``divides``, is divided by a third.
    """

    def __init__(self, blocks: int = 8, channels: int = 8, outputs: int = 10, *, divides: bool = False) -> None:
        super().__init__()
        self.factor = 3.0 if divides else 1 / 3
        self.stem = nn.Conv2d(1, channels, 3, 2, 1)
        self.norms = nn.ModuleList(nn.GroupNorm(2, channels) for _ in range(blocks))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(blocks))
        self.heads = nn.ModuleList(nn.Linear(channels * 16, outputs) for _ in range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Give the logits of all heads, [N, B, classes]."""
        x, found = self.stem(x), []
        for norm, conv, head in zip(self.norms, self.convs, self.heads, strict=True):
            x = x + F.silu(norm(conv(x)))
            x = self.factor * x + (1 - self.factor) * x.detach()
            found.append(head(x.flatten(1)))
        return torch.stack(found, 1)


def each(output: Tensor, y: Tensor) -> Tensor:
    """Ask all heads for the class."""
    return F.cross_entropy(output.flatten(0, 1), y.repeat_interleave(output.shape[1]))


def last(model: nn.Module, x: Tensor) -> Tensor:
    """Listen to the last head alone."""
    return model(x)[:, -1]


class Keypoint(nn.Module):
    """Three convolutions, and where the last is the largest: on average by a softmax; or, ``hard``, by an argmax."""

    def __init__(self, channels: int = 12, maps: int = 4, size: int = 12, *, hard: bool = False) -> None:
        super().__init__()
        body = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
        self.body = nn.Sequential(*body, nn.ReLU(), nn.Conv2d(channels, maps, 1))
        self.head, self.size, self.hard = nn.Linear(2 * maps, 2), size, hard

    def forward(self, x: Tensor) -> Tensor:
        """Give a place."""
        found = self.body(x).flatten(2)
        at = torch.linspace(-1, 1, self.size)
        if self.hard:
            best = found.argmax(2)
            places = torch.stack([at[best // self.size], at[best % self.size]], 2)
        else:
            grid = torch.stack(torch.meshgrid(at, at, indexing="ij"), 2).flatten(0, 1)
            places = found.softmax(2) @ grid
        return self.head(places.flatten(1))


class Segmenter(nn.Module):
    """Down, up, and across, with norms."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
        wide = 2 * channels
        self.low = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(channels, wide, 3, padding=1), nn.BatchNorm2d(wide))
        self.up, self.last = nn.Upsample(scale_factor=2), nn.Conv2d(3 * channels, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Give a logit for each pixel."""
        x = self.down(x)
        return self.last(torch.cat([x, self.up(self.low(x).relu())], 1))


@torch.no_grad()
def unscaled(step: int, network: nn.Module) -> None:
    """Divide gradients by a scale of 65,536."""
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad /= 65536.0


def seismologist(channels: int = 12) -> nn.Module:
    """Build three strided convolutions over time and two linear layers."""
    body: list[nn.Module] = []
    for into, out in ((1, channels), (channels, 2 * channels), (2 * channels, 2 * channels)):
        body += [nn.Conv1d(into, out, 5, 2, 2), nn.LeakyReLU(0.1)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(16 * channels, 32), nn.LeakyReLU(0.1), nn.Linear(32, 4))


def reader(channels: int = 12) -> nn.Module:
    """Build three convolutions and two linear layers."""
    body = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU()]
    body += [nn.Conv2d(channels, 2 * channels, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(8 * channels, 32), nn.ReLU(), nn.Linear(32, 10))


def trained(network: nn.Module, steps: int = 120) -> nn.Module:
    """Learn upright digits first, and give it a new head."""
    before = supervised(network, data.digits("image"), 3e-3, batch=32)
    for number in range(1, steps + 1):
        before.step(number, lambda loss, name: None)
    network.zero_grad()
    network[-1].reset_parameters()
    return network


@torch.no_grad()
def as_bytes(network: nn.Module) -> None:
    """Take weights as a file holds them in 8 bits, -127 to 127, without the scale of each layer."""
    for layer in layers(network)[:-1]:
        layer.weight.copy_((127 * layer.weight / layer.weight.abs().max()).round())


@torch.no_grad()
def uncorrected(network: nn.Module) -> None:
    """Take the average of weights that began at zero and has seen ten steps, by a decay of 0.999."""
    for parameter in network.parameters():
        parameter.mul_(1 - 0.999**10)


class Causal(nn.Module):
    """Two convolutions over what was before, and a way around them."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.convs = nn.ModuleList(nn.Conv1d(channels, channels, 3, dilation=dilation) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        y = x
        for conv in self.convs:
            y = conv(F.pad(y, (self.reach, 0))).relu()
        return x + y


class Forecaster(nn.Module):
    """A stack of those, of which the last step is kept: Bai et al., 2018."""

    def __init__(self, inputs: int = 2, channels: int = 16) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(inputs, channels, 1), nn.Linear(channels, 1)
        self.blocks = nn.Sequential(*(Causal(channels, dilation) for dilation in (1, 2, 4)))

    def forward(self, x: Tensor) -> Tensor:
        """Give what comes next."""
        return self.last(self.blocks(self.first(x))[:, :, -1])


def weaver(channels: int = 16) -> nn.Module:
    """Build three convolutions with batch norms, and a mean over all places."""
    body: list[nn.Module] = []
    for into, out, stride in ((3, channels, 1), (channels, channels, 2), (channels, 2 * channels, 1)):
        body += [nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(2 * channels, 5))
