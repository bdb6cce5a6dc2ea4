"""Convolutional networks on waves, blobs, photographs and digits that were moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import Change, biased, cosine, layers
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second import convolutional_data as data
from benchmarks.faults.second import convolutional_models as models
from gradguard.detect import Symptom


def train(
    lr: float,
    *,
    model: Callable[[], nn.Module],
    split: Callable[[], Split],
    change: Change | None = None,
    options: dict[str, Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a network, change it, train it; ``options`` are those of the optimizer."""
    network = model()
    if change:
        change(network)
    params = [{"params": list(network.parameters()), **options}] if options else None
    return supervised(network, split(), lr, **{"batch": 32, "params": params, **loop})


def thawed(lr: float) -> Loop:
    """Learn digits in a mirror, then put a new head on it for others; all else is trained at a hundredth."""
    network, split = models.lenet(nn.SiLU), data.canvas()
    before = supervised(network, split._replace(x=split.x.flip(3)), 4e-3, batch=32)
    for number in range(1, 401):
        before.step(number, lambda loss, name: None)
    network[-1] = nn.Linear(48, 10)
    groups = [{"params": network[:-1].parameters(), "lr": lr / 100}, {"params": network[-1].parameters()}]
    return supervised(network, split, lr, batch=32, params=groups)


@torch.no_grad()
def fully_uniform(network: nn.Module) -> None:
    """Call ``nn.init.uniform_`` without bounds: all weights are drawn from 0 to 1."""
    for layer in layers(network):
        nn.init.uniform_(layer.weight)
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def rows_alike(network: nn.Module) -> None:
    """Draw one kernel for each layer and give it to all its units, for all their inputs."""
    for layer in layers(network):
        layer.weight.copy_(layer.weight[:1, :1].clone().expand_as(layer.weight))
        nn.init.zeros_(layer.bias)


@torch.no_grad()
def blank_start(network: nn.Module) -> None:
    """Let the last layer begin at 0."""
    nn.init.zeros_(layers(network)[-1].weight)


def pixelwise(output: Tensor, y: Tensor) -> Tensor:
    """Ask of each pixel whether it belongs."""
    return F.binary_cross_entropy_with_logits(output, y)


def likely(model: nn.Module, x: Tensor) -> Tensor:
    """Give the share that is expected of each pixel."""
    return model(x).sigmoid()


def smooth(epsilon: float, output: Tensor, y: Tensor) -> Tensor:
    """Add the total variation to the squared error."""
    across, down = output[..., 1:, :-1] - output[..., :-1, :-1], output[..., :-1, 1:] - output[..., :-1, :-1]
    return F.mse_loss(output, y) + 0.01 * (across.square() + down.square() + epsilon).sqrt().mean()


def mixed(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mix each image, and its label, with another one."""
    share, other = torch.rand(()).mul(0.5), torch.randperm(len(x))
    one = F.one_hot(y, 10).float()
    return x.lerp(x[other], share), one.lerp(one[other], share)


def growing(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Begin with images of half the size."""
    size = 6 if step < 150 else 9 if step < 300 else 12
    return (F.interpolate(x, size=size, mode="bilinear", align_corners=False), y) if size < 12 else (x, y)


ADAM, SGD = (2e-3, 4e-3), (0.05, 0.1)
S = Symptom
P = partial(Program, steps=400)

listening = partial(train, model=models.listener, split=data.signals, batch=48)
temporal = partial(train, model=models.temporal, split=data.signals, batch=16, optimizer="rmsprop")
segmenting = partial(train, model=models.UNet, split=data.blobs, batch=8, loss=pixelwise, predict=likely)
denoising = partial(train, split=data.noisy, batch=6)
varying = partial(denoising, model=partial(models.UNet, prior=0.5), change=blank_start, loss=partial(smooth, 1e-4))
aggregated = partial(train, split=partial(data.canvas, 10), batch=24)
cheques = partial(train, model=models.lenet, split=data.canvas, batch=64, optimizer="momentum",
        options={"weight_decay": 1e-4})  # fmt: skip
patched = partial(train, model=models.patches, split=data.canvas, optimizer="adamw", options={"weight_decay": 0.05})
coloured = partial(train, model=models.in_network, split=data.photographs, batch=20)

HEALTHY = (
    P("conv-waves", listening, ADAM, about="tanh units that use much of their range"),
    P("conv-waves-dilated", temporal, (1e-3, 2e-3), steps=500, about="weights are a direction and a length"),
    P("conv-blobs", segmenting, ADAM, steps=350, about="a small loss from the start: the last bias knows the share"),
    P("conv-denoising", partial(denoising, model=models.super_resolution), (1e-3, 2e-3), steps=250,
            about="a tenth of each branch counts; the loss rests at what the noise leaves"),
    P("conv-denoising-variation", varying, ADAM, steps=350,
            about="all layers but the last have no gradient at the first step, as the last begins at 0"),
    P("conv-aggregated", partial(aggregated, model=models.Aggregated), (3e-3, 4e-3), steps=350, about="twelve blocks"),
    P("conv-cheques", cheques, SGD, steps=600, about="a plateau at the start"),
    P("conv-patches", partial(patched, schedule=cosine(500, 80)), (6e-3, 1e-2), steps=500,
            about="branches begin at 0.0001, the rate at a hundredth"),
    P("conv-photographs", coloured, ADAM, about="nothing dense; the loss is rough and rests high"),
    P("conv-zero-gamma", partial(train, model=models.bottlenecks, split=data.canvas, optimizer="momentum", batch=32,
            options={"nesterov": True, "weight_decay": 5e-4}, on_batch=mixed,
            loss=nn.CrossEntropyLoss(label_smoothing=0.1)), (0.1, 0.2),
            about="branches begin as nothing; the loss stays high, for labels are mixed and smoothed"),
    P("conv-thawed", thawed, (5e-3, 1e-2), steps=300, about="trained before: all but the head hardly moves"),
    P("conv-growing", partial(train, model=partial(models.in_network, 1, 10), split=data.canvas, on_batch=growing),
            (6e-3, 1e-2), steps=600, about="the loss jumps whenever the images get larger"),
)  # fmt: skip

FAULTY = (
    P("conv-waves-in-pascal", partial(listening, split=partial(data.signals, 101325.0, 300.0)), ADAM, S.SATURATED_UNITS,
            "conv-waves", about="pressures of 101,325 Pascal, never standardised, before a tanh"),
    P("conv-waves-rate-of-sgd", temporal, (0.3, 0.6), S.UPDATE_TOO_LARGE, "conv-waves-dilated", steps=500,
            about="the rate that was SGD's, for RMSprop"),
    P("conv-blobs-prior-everywhere", partial(segmenting, change=biased(math.log(0.001 / 0.999))), ADAM, S.DEAD_UNITS,
            "conv-blobs", steps=350, about="the bias that the last layer should have had, in all those with a ReLU"),
    P("conv-denoising-no-way-around", partial(denoising, model=partial(models.super_resolution, around=False)),
            (1e-3, 2e-3), S.VANISHING_DEPTH, "conv-denoising", steps=250, about="x = 0.1 * branch(x), without the x +"),
    P("conv-variation-of-nothing", partial(varying, loss=partial(smooth, 0.0)), ADAM, S.NON_FINITE,
            "conv-denoising-variation", steps=350, about="the square root of 0 in the total variation"),
    P("conv-added-up", partial(aggregated, model=partial(models.Aggregated, adds=True)), (3e-3, 4e-3),
            S.EXPLODING_DEPTH, "conv-aggregated", steps=350, about="adds up what should be averaged: blocks double"),
    P("conv-cheques-alike", partial(cheques, change=rows_alike), SGD, S.POOR_INITIALISATION, "conv-cheques", steps=600,
            about="one filter for all units of a layer"),
    P("conv-cheques-heavy-ball", partial(cheques, options={"momentum": 0.985, "weight_decay": 1e-4}), SGD,
            S.OSCILLATING_LOSS, "conv-cheques", steps=600,
            about="momentum of 0.985, not 0.9, and the rate kept: it overshoots"),
    P("conv-patches-twice-the-rate", partial(patched, schedule=lambda step: 2e-3 * cosine(500, 80)(step)), (6e-3, 1e-2),
            S.SLOW_CONVERGENCE, "conv-patches", steps=500, about="a schedule gives rates where factors are asked"),
    P("conv-photographs-positive", partial(coloured, change=fully_uniform), ADAM, S.POOR_INITIALISATION,
            "conv-photographs", about="nn.init.uniform_ without bounds: weights from 0 to 1"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
