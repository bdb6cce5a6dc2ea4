"""Convolutional networks on sounds, digits, crosses, cracks, quakes, cloth and sales."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.faults import data as common
from benchmarks.faults.fifth import convolutional_data as data
from benchmarks.faults.fifth import convolutional_models as models
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second.convolutional import likely, pixelwise, train
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (1e-3, 2e-3), (0.02, 0.04)

_digits = partial(common.digits, "image")
_sounds = partial(train, model=models.ear, batch=32)
_quota = partial(train, split=_digits, batch=32)
_supervised = partial(train, split=_digits, batch=32, optimizer="momentum", loss=models.each, predict=models.last)
_keypoint = partial(train, split=data.keypoints, batch=32)
_cracks = partial(train, model=models.Segmenter, split=data.cracks, batch=16, optimizer="momentum", loss=pixelwise,
                  predict=likely)  # fmt: skip
_quakes = partial(train, model=models.seismologist, split=data.quakes, batch=32, optimizer="momentum",
                  schedule=cosine(450))  # fmt: skip
_tilted = partial(train, split=data.tilted, model=lambda: models.trained(models.reader()), batch=32)
_sales = partial(train, model=models.Forecaster, split=data.sales, batch=48)


def cloth(lr: float) -> Loop:
    """Tell cloth apart."""
    return train(lr, model=models.weaver, split=data.fabrics, batch=32, optimizer="adamw", schedule=cosine(350, 30),
                 options={"weight_decay": 0.01}, loss=nn.CrossEntropyLoss(label_smoothing=0.05))  # fmt: skip


HEALTHY = (
    Program("conv-sounds", partial(_sounds, split=data.sounds), ADAM, steps=400),
    Program("conv-quota", partial(_quota, model=models.quotas), ADAM, steps=400,
            about="a fifth of each channel is on, by limits that move"),
    Program("conv-deeply-supervised", partial(_supervised, model=models.Supervised), (0.05, 0.1), steps=300,
            about="eight heads, and gradients that are made a third on their way back"),
    Program("conv-keypoint", partial(_keypoint, model=models.Keypoint), (3e-3, 6e-3), steps=350),
    Program("conv-cracks", _cracks, (0.05, 0.1), steps=350),
    Program("conv-quakes", _quakes, SGD, steps=450),
    Program("conv-tilted", _tilted, ADAM, steps=350, about="trained on upright digits before"),
    Program("conv-cloth", cloth, (3e-3, 6e-3), steps=350),
    Program("conv-sales", _sales, (2e-3, 4e-3), steps=400),
)  # fmt: skip

FAULTY = (
    Program("conv-sounds-power", partial(_sounds, split=partial(data.sounds, power=True)), ADAM, S.SATURATED_UNITS,
            "conv-sounds", steps=400, about="the power itself, in millions, and not its logarithm, before a tanh"),
    Program("conv-quota-counts", partial(_quota, model=partial(models.quotas, counts=True)), ADAM, S.DEAD_UNITS,
            "conv-quota", steps=400, about="sum() for mean(): limits rise until nothing is above them"),
    Program("conv-deeply-supervised-divides", partial(_supervised, model=partial(models.Supervised, divides=True)),
            (0.05, 0.1), S.EXPLODING_DEPTH, "conv-deeply-supervised", steps=300,
            about="the gradient is divided by a third: it triples at each of eight blocks on its way back"),
    Program("conv-keypoint-argmax", partial(_keypoint, model=partial(models.Keypoint, hard=True)), (3e-3, 6e-3),
            S.NO_GRADIENT, "conv-keypoint", steps=350, about="an argmax over places, which nothing passes"),
    Program("conv-cracks-unscaled-only", partial(_cracks, on_gradients=models.unscaled), (0.05, 0.1),
            S.UPDATE_TOO_SMALL, "conv-cracks", steps=350,
            about="a refactoring lost scaler.scale(loss), and unscale_() divides gradients by 65,536 still"),
    Program("conv-quakes-bytes-swapped", partial(_quakes, on_batch=data.swapped(380, 386)), SGD, S.LOSS_SPIKE,
            "conv-quakes", steps=450, onset=380, about="seven batches of a file whose bytes are in the other order"),
    Program("conv-tilted-as-bytes", partial(_tilted, change=models.as_bytes), ADAM, S.POOR_INITIALISATION,
            "conv-tilted", steps=350, about="weights of 8 bits, loaded without their scales: up to 127"),
    Program("conv-quakes-uncorrected", partial(_quakes, change=models.uncorrected), SGD, S.POOR_INITIALISATION,
            "conv-quakes", steps=450,
            about="starts from an average of weights that began at zero, after ten steps: a hundredth of them"),
    Program("conv-sales-betas", partial(_sales, options={"betas": (0.999, 0.9)}), (2e-3, 4e-3), S.UPDATE_TOO_LARGE,
            "conv-sales", steps=400, about="Adam's betas change places: 0.999 and 0.9"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
