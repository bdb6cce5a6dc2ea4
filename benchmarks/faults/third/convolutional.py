"""Convolutional networks on shapes, stripes, heart beats, cells, flags and digits."""

from __future__ import annotations

from functools import partial

from torch.nn import functional as F

from benchmarks.faults import data as common
from benchmarks.faults.planting import staircase
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second.convolutional import train
from benchmarks.faults.third import convolutional_data as data
from benchmarks.faults.third import convolutional_models as models
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.02, 0.04)

_shapes = partial(train, split=data.shapes, batch=24)
_beats = partial(train, split=data.beats, batch=36)
_digits = partial(common.digits, "image")
_flags = partial(train, model=models.squeezed, split=data.flags, batch=24, optimizer="adamw",
                 options={"weight_decay": 0.01})  # fmt: skip
_gratings = partial(train, model=models.gratings, split=data.gratings, batch=40, optimizer="nesterov")


def pipelined(lr: float, *, by: int) -> Loop:
    """Count cells, with gradients that come so many steps late."""
    late = models.late(by)
    return train(lr, model=models.counter, split=data.cells, batch=24, optimizer="sgd", loss=F.smooth_l1_loss,
                 on_gradients=late)  # fmt: skip


HEALTHY = (
    Program("conv-contrast", partial(_shapes, model=models.contrasts), ADAM, steps=300,
            about="half of the channels are off at each place, by construction"),
    Program("conv-beats-periodic", partial(_beats, model=models.periodic), (5e-4, 1e-3), steps=350,
            about="sines of twenty times what comes out, and weights of a twentieth"),
    Program("conv-adadelta", partial(models.by_adadelta, split=_digits), (0.7, 1.0), steps=400,
            about="a rate of 1, and a noisy loss by much dropout"),
    Program("conv-flags", _flags, ADAM, steps=250, about="channels are weighted by a half and less"),
    Program("conv-gratings", partial(_gratings, schedule=staircase(200, 350)), SGD, steps=450,
            about="the rate falls a hundredfold"),
    Program("conv-cells-pipelined", partial(pipelined, by=2), (0.04, 0.06), steps=400,
            about="each gradient is two steps old, and there is none in the first two steps"),
)  # fmt: skip

FAULTY = (
    Program("conv-contrast-by-the-largest", partial(_shapes, model=partial(models.contrasts, least=True)), ADAM,
            S.DEAD_UNITS, "conv-contrast", steps=300,
            about="the largest is subtracted before a ReLU, as is done before a softmax: nothing is above"),
    Program("conv-beats-periodic-default", partial(_beats, model=partial(models.periodic, divides=False)), (5e-4, 1e-3),
            S.EXPLODING_DEPTH, "conv-beats-periodic", steps=350,
            about="PyTorch's own weights in six layers of sines of twenty times what comes out"),
    Program("conv-adadelta-to-adam", partial(train, model=models.example, split=_digits, batch=32,
            schedule=lambda step: 0.7 ** (step // 120)), (0.7, 1.0), S.UPDATE_TOO_LARGE, "conv-adadelta", steps=400,
            about="Adam in place of Adadelta, at Adadelta's rate"),
    Program("conv-flags-all-zero-gamma", partial(_flags, change=models.nothing), ADAM, S.POOR_INITIALISATION,
            "conv-flags", steps=250, about="all norms begin at zero, as only those that end a branch may"),
    Program("conv-gratings-staircase-by-batch", partial(_gratings, schedule=lambda step: 0.1 ** (step - 1)), SGD,
            S.UPDATE_TOO_SMALL, "conv-gratings", steps=450, onset=7,
            about="the rate falls tenfold with each batch, where an epoch was meant"),
    Program("conv-cells-late", partial(pipelined, by=40), (0.04, 0.06), S.OSCILLATING_LOSS, "conv-cells-pipelined",
            steps=400, about="gradients are 40 steps old: the steps go on long after they should turn"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
