"""Convolutional networks on handwritten digits of 8 by 8."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults import data
from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import (
    Change,
    biased,
    burst,
    constant,
    corrupted,
    cosine,
    gain,
    layers,
    normal,
    not_a_number,
    scaled,
    staircase,
)
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom


class Block(nn.Module):
    """Two convolutions with a shortcut, activations after the sum."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)
        self.conv2, self.norm2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False), norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return torch.relu(x + self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x))))))


class Features(nn.Module):
    """Convolutions whose output is cut off from the loss, before a head."""

    def __init__(self, *, cut: bool) -> None:
        super().__init__()
        self.body, self.head, self.cut = plain()[:-1], nn.Linear(64, 10), cut

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = self.body(x)
        return self.head(x.data if self.cut else x)


def plain(
    channels: int = 16,
    depth: int = 2,
    act: Callable[[], nn.Module] = nn.ReLU,
    norm: Callable[[int], nn.Module] | None = None,
    pool: Callable[[int], nn.Module] = nn.MaxPool2d,
) -> nn.Sequential:
    """Build convolutions, each with an activation, that end in 2 by 2 values of each channel, and a linear layer."""
    parts: list[nn.Module] = []
    for i in range(depth):
        parts.append(nn.Conv2d(channels if i else 1, channels, 3, padding=1))
        parts += [norm(channels)] if norm else []
        parts.append(act())
        parts += [pool(2)] if i in (0, depth - 1) else []
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(4 * channels, 10))


def residual(norm: Callable[[int], nn.Module] = nn.BatchNorm2d, blocks: int = 3) -> nn.Module:
    """Build a small ResNet."""
    body = [Block(8, norm) for _ in range(blocks)]
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), *body, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(32, 10)
    )


def strided() -> nn.Module:
    """Build a network without pooling, with leaky units."""
    parts = [nn.Conv2d(1, 8, 3, 2, 1), nn.LeakyReLU(0.1), nn.Conv2d(8, 32, 3, 2, 1), nn.LeakyReLU(0.1)]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(128, 10))


def train(
    lr: float,
    *,
    model: Callable[[], nn.Module] = plain,
    change: Change | None = None,
    split: Callable[[], Split] | None = None,
    **loop: Any,
) -> Loop:
    """Build a network, change it, train it."""
    network = model()
    if change:
        change(network)
    return supervised(network, split() if split else data.digits("image"), lr, **{"batch": 32, **loop})


def frozen(network: nn.Module) -> None:
    """Freeze the first layer, as a backbone that was trained before."""
    layers(network)[0].requires_grad_(False)


def bright() -> Split:
    """Forget to scale the inputs: 0 to 255 in place of -1 to 1."""
    return data.changed(data.digits("image"), lambda x: (x + 1) * 127.5)


def no_epsilon(output: Tensor, y: Tensor) -> Tensor:
    """Normalise by the spread of a masked output, which is 0 where nothing is left."""
    kept = output * (output > output.mean(1, keepdim=True) + 3)
    return nn.functional.cross_entropy(output, y) + 0.01 * (kept / kept.norm(dim=1, keepdim=True)).mean()


deep = partial(plain, channels=8, depth=8)
ADAM, SGD = (1e-3, 3e-3), (0.02, 0.05)
S = Symptom
P = partial(Program, steps=400)

HEALTHY = (
    P("conv-digits", train, ADAM),
    P("conv-momentum", partial(train, optimizer="momentum"), SGD),
    P("conv-batchnorm", partial(train, model=partial(plain, norm=nn.BatchNorm2d), optimizer="momentum"), SGD),
    P("conv-residual", partial(train, model=residual), ADAM),
    P("conv-residual-groupnorm", partial(train, model=partial(residual, partial(nn.GroupNorm, 2))), ADAM),
    P("conv-deep-batchnorm", partial(train, model=partial(deep, norm=nn.BatchNorm2d)), ADAM),
    P("conv-deep-he", partial(train, model=deep, change=gain(1.4)), (5e-4, 1e-3), about="eight layers, no norm"),
    P("conv-tanh", partial(train, model=partial(plain, act=nn.Tanh, pool=nn.AvgPool2d)), ADAM),
    P("conv-gelu-dropout", partial(train, model=partial(plain, act=nn.GELU), schedule=cosine(400)), (2e-3, 5e-3),
            about="updates vanish at the end"),
    P("conv-strided", partial(train, model=strided, optimizer="rmsprop"), (5e-4, 1e-3)),
    P("conv-sparse", partial(train, model=partial(plain, channels=32), change=biased(-0.3)), ADAM,
            about="most channels are off at most places, and all of them alive"),
    P("conv-frozen", partial(train, change=frozen), ADAM, about="no gradient comes to the first layer"),
    P("conv-staircase", partial(train, optimizer="momentum", schedule=staircase(150, 300)), SGD,
            about="the learning rate falls a hundredfold"),
    P("conv-accumulate", partial(train, accumulate=4, batch=8), ADAM),
    P("conv-small-batches", partial(train, batch=4), (1e-3, 2e-3), about="a very noisy loss"),
)  # fmt: skip

FAULTY = (
    P("conv-deep-sigmoid", partial(train, model=partial(deep, act=nn.Sigmoid)), (5e-4, 1e-3), S.VANISHING_DEPTH,
            "conv-deep-he", about="sigmoids in eight layers"),
    P("conv-deep-small", partial(train, model=partial(deep, depth=10, act=nn.Tanh), change=gain(0.25)), (5e-4, 1e-3),
            S.VANISHING_DEPTH, "conv-deep-he", about="ten layers of tanh, weights a quarter of Xavier's"),
    P("conv-deep-chaotic", partial(train, model=partial(deep, depth=16, act=nn.Tanh), change=gain(6.0)), (5e-4, 1e-3),
            S.EXPLODING_DEPTH, "conv-deep-he", about="sixteen layers of tanh with weights of six times Xavier's"),
    P("conv-dead-bias", partial(train, change=biased(-6.0)), ADAM, S.DEAD_UNITS, "conv-digits",
            about="biases of -6 before a ReLU"),
    P("conv-dead-burst", partial(train, schedule=burst(4, 500.0)), ADAM, S.DEAD_UNITS, "conv-digits",
            about="four steps 500 times too large"),
    P("conv-saturated", partial(train, model=partial(plain, depth=4, act=nn.Tanh, pool=nn.AvgPool2d),
            change=scaled(300.0, last=False)), ADAM, S.SATURATED_UNITS, "conv-tanh", about="weights times 300"),
    P("conv-saturated-unscaled", partial(train, model=partial(plain, act=nn.Sigmoid, pool=nn.AvgPool2d),
            split=bright), ADAM, S.SATURATED_UNITS, "conv-tanh", about="pixels up to 255 before a sigmoid"),
    P("conv-constant", partial(train, change=constant(0.02)), ADAM, S.POOR_INITIALISATION, "conv-digits",
            about="all weights alike"),
    P("conv-tiny", partial(train, model=partial(plain, depth=5), change=normal(1e-3), optimizer="momentum"), SGD,
            S.POOR_INITIALISATION, "conv-momentum", about="weights of 0.001 in six layers"),
    P("conv-huge", partial(train, model=partial(plain, depth=5), change=normal(1.0)), ADAM, S.POOR_INITIALISATION,
            "conv-digits", about="weights of 1 in six layers"),
    P("conv-rate-300", train, (0.3, 0.9), S.UPDATE_TOO_LARGE, "conv-digits", about="the rate times 300"),
    P("conv-rate-residual", partial(train, model=partial(residual, nn.InstanceNorm2d)), (1.5, 3.0), S.UPDATE_TOO_LARGE,
            "conv-residual", about="the rate times 1,000"),
    P("conv-rate-slow", train, (3e-6, 1e-5), S.SLOW_CONVERGENCE, "conv-digits", about="the rate over 300"),
    P("conv-rate-slow-momentum", partial(train, optimizer="momentum"), (2e-5, 5e-5), S.SLOW_CONVERGENCE,
            "conv-momentum", about="the rate over 1,000"),
    P("conv-rate-none", partial(train, optimizer="momentum"), (1e-11, 1e-10), S.UPDATE_TOO_SMALL,
            "conv-momentum", about="the rate over 10^9"),
    P("conv-detached", partial(train, model=partial(Features, cut=True), change=scaled(0.02, last=False)), ADAM,
            S.NO_GRADIENT, "conv-digits", about=".data before the head"),
    P("conv-no-epsilon", partial(train, loss=no_epsilon), ADAM, S.NON_FINITE, "conv-digits",
            about="a division by a norm of 0"),
    P("conv-nan", partial(train, on_batch=not_a_number(250)), ADAM, S.NON_FINITE, "conv-digits", onset=250,
            about="a NaN in one batch"),
    P("conv-spike", partial(train, optimizer="momentum", on_batch=corrupted(330, 336, 100.0), schedule=cosine(400)),
            SGD, S.LOSS_SPIKE, "conv-staircase", onset=330, about="bad batches late in a falling learning rate"),
    P("conv-bouncing", partial(train, model=partial(plain, act=nn.Tanh, pool=nn.AvgPool2d), optimizer="momentum"),
            (2.0, 4.0), S.OSCILLATING_LOSS, "conv-tanh", about="momentum at too high a rate"),
)  # fmt: skip

PROGRAMS = (*HEALTHY, *FAULTY)
