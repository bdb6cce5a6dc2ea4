"""Fully connected networks."""

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
    normal,
    not_a_number,
    scaled,
    staircase,
)
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom


class Functional(nn.Module):
    """The same as a Sequential, with the activations as functions; ``cut`` loses the gradient of the first layers."""

    def __init__(self, inputs: int, outputs: int, width: int = 64, *, cut: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.last, self.cut = nn.Linear(width, outputs), cut

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(x.detach() if self.cut else x)


class Residual(nn.Module):
    """A block with a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.wide, self.back = nn.LayerNorm(width), nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Add to what comes in."""
        return x + self.back(torch.relu(self.wide(self.norm(x))))


class Tied(nn.Module):
    """One layer that is used three times."""

    def __init__(self, inputs: int, outputs: int, width: int = 64) -> None:
        super().__init__()
        self.first, self.middle, self.last = (
            nn.Linear(inputs, width),
            nn.Linear(width, width),
            nn.Linear(width, outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Give logits."""
        x = torch.tanh(self.first(x))
        for _ in range(3):
            x = torch.tanh(self.middle(x))
        return self.last(x)


def mlp(
    inputs: int,
    outputs: int,
    *,
    width: int = 64,
    depth: int = 2,
    act: Callable[[], nn.Module] = nn.ReLU,
    norm: Callable[[int], nn.Module] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Build ``depth`` hidden layers and a linear one."""
    parts: list[nn.Module] = []
    for i in range(depth):
        parts.append(nn.Linear(inputs if i == 0 else width, width))
        parts += [norm(width)] if norm else []
        parts.append(act())
        parts += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*parts, nn.Linear(width, outputs))


def train(
    lr: float,
    *,
    split: Callable[[], Split] = data.digits,
    model: Callable[[int, int], nn.Module] = mlp,
    change: Change | None = None,
    **loop: Any,
) -> Loop:
    """Build a network for a split, change it, train it."""
    of = split()
    outputs = of.y.shape[1] if of.y.is_floating_point() else int(of.y.max()) + 1
    network = model(of.x.shape[1], outputs)
    if change:
        change(network)
    return supervised(network, of, lr, **loop)


def residual(inputs: int, outputs: int, width: int = 32, depth: int = 8) -> nn.Module:
    """Build a deep network with shortcuts."""
    blocks = [Residual(width) for _ in range(depth)]
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.LayerNorm(width), nn.Linear(width, outputs))


def frozen(inputs: int, outputs: int) -> nn.Module:
    """Freeze all but the last layer."""
    network = mlp(inputs, outputs, width=256, depth=1)
    network[0].requires_grad_(False)
    return network


def log_of_softmax(output: Tensor, y: Tensor) -> Tensor:
    """Take a logarithm of what rounds to zero."""
    return -(1000 * output).softmax(1).gather(1, y[:, None]).log().mean()


def root(output: Tensor, y: Tensor) -> Tensor:
    """Take a root at 0, where its slope is infinite and a mask makes a NaN of it."""
    beyond = (output - y).abs() - 0.05
    return (beyond * (beyond > 0)).sqrt().mean()


def gaussian(output: Tensor, y: Tensor) -> Tensor:
    """Give a negative log-likelihood, which falls below zero."""
    return nn.functional.gaussian_nll_loss(output, y, torch.full_like(y, 0.02))


def bright() -> Split:
    """Forget to scale the inputs: 0 to 255 in place of -1 to 1."""
    return data.changed(data.digits(), lambda x: (x + 1) * 127.5)


def large(split: Split) -> Split:
    """Measure targets in other units."""
    return split._replace(y=100 * split.y, y_test=100 * split.y_test)


deep = partial(mlp, width=64, depth=10)
chaotic = partial(mlp, width=64, depth=20, act=nn.Tanh)
tanh = partial(mlp, act=nn.Tanh)
ADAM, SGD = (1e-3, 3e-3), (0.03, 0.1)
S = Symptom

HEALTHY = (
    Program("dense-digits", train, ADAM),
    Program("dense-momentum", partial(train, optimizer="momentum"), SGD),
    Program("dense-functional", partial(train, model=partial(Functional, width=64)), ADAM),
    Program("dense-spirals", partial(train, split=data.spirals, model=partial(Functional, width=32)), (3e-3, 1e-2)),
    Program("dense-sparse", partial(train, model=partial(mlp, width=256), change=biased(-0.5, slice(0, 1))), ADAM,
            about="most units are off on most inputs, and all of them alive"),
    Program("dense-tanh", partial(train, model=tanh, optimizer="momentum"), SGD),
    Program("dense-sigmoid", partial(train, model=partial(mlp, act=nn.Sigmoid, depth=1)), (3e-3, 1e-2),
            about="one layer of sigmoids, of which many are nearly shut"),
    Program("dense-deep-batchnorm", partial(train, model=partial(deep, norm=nn.BatchNorm1d)), ADAM,
            about="the gradient grows on its way back, and every layer is normalised"),
    Program("dense-deep-layernorm", partial(train, model=partial(deep, act=nn.GELU, norm=nn.LayerNorm)), ADAM),
    Program("dense-deep-residual", partial(train, model=residual), ADAM),
    Program("dense-deep-tanh", partial(train, model=partial(chaotic, depth=12), change=gain(1.2)), (3e-4, 1e-3)),
    Program("dense-deep-selu", partial(train, model=partial(deep, act=nn.SELU), change=gain(1.0)), (3e-4, 1e-3)),
    Program("dense-waves", partial(train, split=data.waves), (3e-3, 1e-2)),
    Program("dense-diabetes", partial(train, split=data.diabetes, model=partial(mlp, width=16)), (1e-3, 3e-3),
            about="half of the target is noise: the loss rests high"),
    Program("dense-noise", partial(train, split=data.noise), ADAM, about="the loss rests near that of a guess"),
    Program("dense-cosine", partial(train, schedule=cosine()), ADAM, about="updates vanish at the end"),
    Program("dense-staircase", partial(train, optimizer="momentum", schedule=staircase(250, 450)), SGD,
            about="the learning rate falls a hundredfold"),
    Program("dense-warmup", partial(train, schedule=cosine(warmup=100)), (3e-3, 1e-2), about="tiny first steps"),
    Program("dense-cyclic", partial(train, schedule=lambda step: 0.1 + abs((step % 100) / 50 - 1)), ADAM,
            about="updates and gradients rise and fall with the learning rate"),
    Program("dense-frozen", partial(train, model=frozen), (3e-3, 1e-2), about="no gradient comes to the first layer"),
    Program("dense-accumulate", partial(train, accumulate=4, batch=16), ADAM),
    Program("dense-large-targets", partial(train, split=lambda: large(data.waves())), (1e-2, 3e-2),
            about="losses of ten thousand, and gradients to match"),
    Program("dense-separable", partial(train, split=partial(data.clusters, spread=0.5)), (3e-3, 1e-2),
            about="the loss falls to nothing, and the gradient with it"),
    Program("dense-negative-loss", partial(train, split=data.waves, loss=gaussian), (1e-3, 3e-3),
            about="the loss passes zero"),
    Program("dense-tied", partial(train, model=partial(Tied, width=64)), ADAM, about="one layer is called three times"),
    Program("dense-dropout", partial(train, model=partial(mlp, width=128, dropout=0.5)), ADAM, about="a noisy loss"),
    Program("dense-small-batches", partial(train, batch=4), (1e-3, 2e-3), about="a very noisy loss"),
    Program("dense-sum", partial(train, loss=partial(nn.functional.cross_entropy, reduction="sum"), optimizer="sgd"),
            (5e-4, 2e-3), about="a sum over the batch: norms of a hundred"),
    Program("dense-cancer", partial(train, split=data.cancer, model=partial(mlp, width=16)), ADAM),
    Program("dense-wine", partial(train, split=data.wine, model=partial(mlp, width=32, act=nn.LeakyReLU)), ADAM),
    Program("dense-clipped", partial(train, optimizer="momentum",
            on_gradients=lambda step, model: nn.utils.clip_grad_norm_(model.parameters(), 1.0)), SGD,
            about="the loop clips, now and then"),
)  # fmt: skip

FAULTY = (
    Program("dense-deep-sigmoid", partial(train, model=partial(deep, act=nn.Sigmoid)), ADAM, S.VANISHING_DEPTH,
            "dense-deep-layernorm", about="sigmoids in ten layers"),
    Program("dense-deep-sigmoid-momentum", partial(train, model=partial(deep, act=nn.Sigmoid, depth=8),
            optimizer="momentum"), SGD, S.VANISHING_DEPTH, "dense-momentum", about="sigmoids in eight layers"),
    Program("dense-deep-tanh-small", partial(train, model=partial(chaotic, depth=12), change=gain(0.3)), (3e-4, 1e-3),
            S.VANISHING_DEPTH, "dense-deep-tanh", about="weights a quarter as large"),
    Program("dense-deep-tanh-chaotic", partial(train, model=chaotic, change=gain(5.0)), (3e-4, 1e-3),
            S.EXPLODING_DEPTH, "dense-deep-tanh", about="twenty layers whose weights are four times as large"),
    Program("dense-deep-tanh-chaotic-momentum", partial(train, model=partial(chaotic, depth=24), optimizer="momentum",
            change=gain(4.0)), (3e-3, 1e-2), S.EXPLODING_DEPTH, "dense-tanh", about="24 layers of large weights"),
    Program("dense-dead-bias", partial(train, change=biased(-10.0)), ADAM, S.DEAD_UNITS, "dense-digits",
            about="biases of -10 before a ReLU"),
    Program("dense-dead-burst", partial(train, schedule=burst(5, 1000.0)), ADAM, S.DEAD_UNITS, "dense-digits",
            about="five steps a thousand times too large, which leave no unit alive"),
    Program("dense-dead-functional", partial(train, model=partial(Functional, width=64), change=biased(-8.0)), ADAM,
            S.DEAD_UNITS, "dense-functional", about="biases of -8 before a ReLU that is a function"),
    Program("dense-saturated", partial(train, model=tanh, optimizer="momentum", change=scaled(100.0, last=False)), SGD,
            S.SATURATED_UNITS, "dense-tanh", about="weights a hundred times as large before a tanh"),
    Program("dense-saturated-unscaled", partial(train, split=bright, model=tanh,
            optimizer="momentum"), SGD, S.SATURATED_UNITS, "dense-tanh", about="pixels up to 255 before a tanh"),
    Program("dense-saturated-sigmoid", partial(train, model=partial(mlp, act=nn.Sigmoid, depth=2),
            change=biased(25.0)), (3e-3, 1e-2), S.SATURATED_UNITS, "dense-sigmoid", about="biases of 25"),
    Program("dense-constant", partial(train, change=constant(0.05)), ADAM, S.POOR_INITIALISATION, "dense-digits",
            about="all weights alike"),
    Program("dense-zero", partial(train, model=tanh, optimizer="momentum", change=constant(0.0)), SGD,
            S.POOR_INITIALISATION, "dense-tanh", about="all weights 0"),
    Program("dense-tiny", partial(train, model=partial(mlp, depth=5), optimizer="momentum", change=normal(1e-3)), SGD,
            S.POOR_INITIALISATION, "dense-momentum", about="weights of 0.001 in six layers"),
    Program("dense-huge", partial(train, model=partial(mlp, depth=5), change=normal(1.0)), ADAM,
            S.POOR_INITIALISATION, "dense-digits", about="weights of 1 in six layers"),
    Program("dense-rate-300", train, (0.3, 0.9), S.UPDATE_TOO_LARGE, "dense-digits", about="the rate times 300"),
    Program("dense-rate-spirals", partial(train, split=data.spirals, model=partial(Functional, width=32)), (1.0, 3.0),
            S.UPDATE_TOO_LARGE, "dense-spirals", about="the rate times 300"),
    Program("dense-rate-slow", train, (3e-6, 1e-5), S.SLOW_CONVERGENCE, "dense-digits", about="the rate over 300"),
    Program("dense-rate-slow-waves", partial(train, split=data.waves), (1e-5, 3e-5), S.SLOW_CONVERGENCE, "dense-waves",
            about="the rate over 300"),
    Program("dense-rate-slow-momentum", partial(train, optimizer="momentum"), (3e-5, 1e-4), S.SLOW_CONVERGENCE,
            "dense-momentum", about="the rate over 1,000"),
    Program("dense-rate-none", train, (1e-10, 3e-10), S.UPDATE_TOO_SMALL, "dense-digits", about="the rate over 10^7"),
    Program("dense-detached", partial(train, split=data.spirals, model=partial(Functional, width=32, cut=True)),
            (3e-3, 1e-2), S.NO_GRADIENT, "dense-spirals", about="a detach() before the last layer"),
    Program("dense-log", partial(train, loss=log_of_softmax), ADAM, S.NON_FINITE, "dense-digits",
            about="the logarithm of a probability that rounds to 0"),
    Program("dense-root", partial(train, split=data.waves, loss=root), (3e-3, 1e-2), S.NON_FINITE, "dense-waves",
            about="a root at 0"),
    Program("dense-nan", partial(train, on_batch=not_a_number(250)), ADAM, S.NON_FINITE, "dense-digits", onset=250,
            about="a NaN in one batch"),
    Program("dense-spike", partial(train, optimizer="momentum", on_batch=corrupted(480, 486, 100.0),
            schedule=cosine()), (0.05, 0.1), S.LOSS_SPIKE, "dense-staircase", onset=480,
            about="bad batches late in a falling learning rate"),
    Program("dense-bouncing", partial(train, split=data.waves, optimizer="momentum"), (0.5, 0.7), S.OSCILLATING_LOSS,
            "dense-waves", about="momentum at too high a rate"),
    Program("dense-no-zero-grad", partial(train, optimizer="sgd", model=tanh, forgets=True), SGD,
            S.OSCILLATING_LOSS, "dense-tanh", about="gradients add up for ever"),
    Program("dense-overclipped", partial(train, optimizer="sgd",
            on_gradients=lambda step, model: nn.utils.clip_grad_norm_(model.parameters(), 1e-2)), SGD,
            S.CLIPPED_UPSTREAM, "dense-momentum", about="the loop clips everything to 0.01"),
)  # fmt: skip

PROGRAMS = (*HEALTHY, *FAULTY)
