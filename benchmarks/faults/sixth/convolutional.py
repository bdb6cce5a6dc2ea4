"""Convolutional networks on leaves, boards, fruit, digits, ships, bearings and waves."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second.convolutional import train
from benchmarks.faults.sixth import convolutional_data as data
from benchmarks.faults.sixth import convolutional_models as models
from gradguard.clip import NormClip
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.03, 0.06)

_leaves = partial(train, split=data.leaves, batch=24, optimizer="momentum", schedule=cosine(400))
_knots = partial(train, model=models.sawmill, split=data.knots, batch=24)
_fruit = partial(train, model=models.grocer, batch=32)
_even = partial(train, model=models.counter, split=data.even, batch=32, optimizer="momentum")
_ships = partial(train, model=models.lookout, split=data.ships, batch=16, predict=models.seen)
_bearings = partial(train, model=models.mechanic, split=data.bearings, batch=32, optimizer="nesterov",
                    options={"weight_decay": 1e-4})  # fmt: skip


def ripples(lr: float, *, limit: float = 1.0) -> Loop:
    """Guess the wind, with clipped gradients."""
    clip = NormClip(limit)
    return train(lr, model=models.sailor, split=data.ripples, batch=32, optimizer="momentum", clip=clip,
                 on_gradients=lambda step, network: clip.clip_(list(network.parameters())))  # fmt: skip


HEALTHY = (
    Program("conv-leaves-quantized", partial(_leaves, model=models.quantized), (0.05, 0.1), steps=400,
            about="rounding, past which the gradient is led on purpose"),
    Program("conv-knots", partial(_knots, change=models.begin), ADAM, steps=350),
    Program("conv-fruit", partial(_fruit, split=data.fruit), (3e-3, 6e-3), steps=500),
    Program("conv-even-lars", partial(_even, on_gradients=models.Trust()), (5.0, 10.0), steps=400,
            about="rates of ten, of which a thousandth is used"),
    Program("conv-ships", partial(_ships, loss=models.found), ADAM, steps=450),
    Program("conv-bearings", _bearings, SGD, steps=450),
    Program("conv-ripples", ripples, SGD, steps=450, about="clips now and then"),
)  # fmt: skip

FAULTY = (
    Program("conv-leaves-scaled-ratio", partial(_leaves, model=partial(models.quantized, of_ratio=True)), (0.05, 0.1),
            S.VANISHING_DEPTH, "conv-leaves-quantized", steps=400,
            about="the gradient of x / step is scaled, not that of the step alone: it shrinks at each of five layers"),
    Program("conv-knots-all-ones", partial(_knots, change=partial(models.begin, merged=True)), ADAM,
            S.POOR_INITIALISATION, "conv-knots", steps=350,
            about="two branches of an init are merged: all weights begin at 1, as those of norms"),
    Program("conv-fruit-bytes", partial(_fruit, split=partial(data.fruit, as_bytes=True)), (3e-3, 6e-3),
            S.SATURATED_UNITS, "conv-fruit", steps=500,
            about="ImageNet's mean and spread, of 0 to 1, for bytes up to 255, before a tanh"),
    Program("conv-even-lars-without-trust", partial(_even, on_gradients=models.Trust(bare=True)), (5.0, 10.0),
            S.UPDATE_TOO_LARGE, "conv-even-lars", steps=400,
            about="gradients are divided by their norm, and neither weights nor the trust coefficient are asked"),
    Program("conv-ships-mean-of-none", partial(_ships, loss=partial(models.found, bare=True)), ADAM, S.NON_FINITE,
            "conv-ships", steps=450, about="the mean over the ships of a batch that has none: 0 / 0"),
    Program("conv-bearings-scaled-by-batch", partial(_bearings, schedule=lambda step: 32 / 256), SGD,
            S.SLOW_CONVERGENCE, "conv-bearings", steps=450,
            about="batch / 256, as in a paper, for a rate that was found for batches of 32: an eighth of it"),
    Program("conv-ripples-limit-of-a-mean", partial(ripples, limit=0.015), SGD, S.CLIPPED_TOO_OFTEN, "conv-ripples",
            steps=450, about="a limit of 0.015, copied from where the loss was in millimetres"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
