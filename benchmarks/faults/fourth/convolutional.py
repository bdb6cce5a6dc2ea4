"""Convolutional networks on scans, showers, distances, mail, land, calls, languages, metal and the sky."""

from __future__ import annotations

from functools import partial

from torch import nn

from benchmarks.faults.fourth import convolutional_data as data
from benchmarks.faults.fourth import convolutional_models as models
from benchmarks.faults.planting import cosine, staircase
from benchmarks.faults.program import Program
from benchmarks.faults.second.convolutional import train
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (1e-3, 2e-3), (0.02, 0.04)

_scans = partial(train, model=models.scanner, batch=32)
_radar = partial(train, model=models.nowcast, split=data.radar, batch=16)
_ranges = partial(train, model=models.ranger, split=data.ranges, batch=16)
_mail = partial(train, model=models.deep, split=data.mail, batch=32, optimizer="momentum",
                options={"weight_decay": 5e-4}, schedule=cosine(450))  # fmt: skip
_satellite = partial(train, split=data.satellite, change=models.he, batch=32)
_land = partial(train, model=models.land, split=data.satellite, batch=32, optimizer="nesterov",
                options={"weight_decay": 5e-4})  # fmt: skip
_calls = partial(train, model=models.listener, split=data.calls, batch=40, optimizer="momentum")
_words = partial(train, model=models.Letters, split=data.words, batch=48)
_metal = partial(train, model=models.inspector, split=data.surfaces, batch=32, optimizer="adamw",
                 loss=nn.CrossEntropyLoss(label_smoothing=0.1))  # fmt: skip
_sky = partial(train, split=data.sky, batch=32)


def _columns(act: type[nn.Module]) -> nn.Module:
    """Build eight convolutions and two linear layers."""
    return models.deep(act, (8, 8, 12, 12, 12, 12, 12, 12), 3, 9, 5)


HEALTHY = (
    Program("conv-scans", partial(_scans, split=data.scans), ADAM, steps=400),
    Program("conv-radar", _radar, (2e-3, 4e-3), steps=350),
    Program("conv-ranges", partial(_ranges, loss=models.logarithmic), (2e-3, 4e-3), steps=300),
    Program("conv-mail", partial(_mail, change=models.he, on_batch=models.shaken), SGD, steps=450),
    Program("conv-satellite", partial(_satellite, model=partial(_columns, nn.Hardswish)), ADAM, steps=350),
    Program("conv-land", partial(_land, schedule=models.triangle(50)), (0.03, 0.06), steps=360,
            about="a cyclic rate, tenfold at its top"),
    Program("conv-calls", _calls, (0.03, 0.06), steps=400),
    Program("conv-languages", _words, ADAM, steps=400),
    Program("conv-metal", _metal, ADAM, steps=350),
    Program("conv-sky", partial(_sky, model=models.telescope), ADAM, steps=400,
            about="most places are black, and what is faint is cut off"),
)  # fmt: skip

FAULTY = (
    Program("conv-scans-as-stored", partial(_scans, split=partial(data.scans, windowed=False)), ADAM,
            S.SATURATED_UNITS, "conv-scans", steps=400, about="16 bits as a file holds them, before a tanh"),
    Program("conv-ranges-unseen", partial(_ranges, loss=partial(models.logarithmic, masked=False)), (2e-3, 4e-3),
            S.NON_FINITE, "conv-ranges", steps=300, about="the logarithm of 0 where the sensor saw nothing"),
    Program("conv-mail-as-alexnet", partial(_mail, change=models.as_alexnet, on_batch=models.shaken), SGD,
            S.POOR_INITIALISATION, "conv-mail", steps=450,
            about="weights of 0.01 in six layers: the signal is lost on its way"),
    Program("conv-mail-unconverted", partial(_mail, change=models.he, on_batch=models.unconverted(400, 404)), SGD,
            S.LOSS_SPIKE, "conv-mail", steps=450, onset=400,
            about="five batches of a shard that holds bytes up to 255, late in a falling rate"),
    Program("conv-satellite-hardsigmoid", partial(_satellite, model=partial(_columns, nn.Hardsigmoid)), ADAM,
            S.VANISHING_DEPTH, "conv-satellite", steps=350,
            about="Hardsigmoid in place of Hardswish, with a slope of a sixth, in nine layers"),
    Program("conv-land-cycles-too-high", partial(_land, schedule=models.triangle(50, most=100.0)), (0.03, 0.06),
            S.OSCILLATING_LOSS, "conv-land", steps=360,
            about="the top of the cycle is 100 times too high: the loss leaps up in each cycle"),
    Program("conv-calls-summed", partial(_calls, on_gradients=models.summed(256)), (0.03, 0.06), S.UPDATE_TOO_LARGE,
            "conv-calls", steps=400, about="all_reduce() adds up the gradients of 256 workers; nobody divides"),
    Program("conv-calls-milestones-by-batch", partial(_calls, schedule=staircase(10, 20)), (0.03, 0.06),
            S.SLOW_CONVERGENCE, "conv-calls", steps=400, onset=10,
            about="milestones in epochs for a scheduler that counts batches: a hundredth of the rate from step 20"),
    Program("conv-languages-epsilon", partial(_words, options={"eps": 1e8}), ADAM, S.UPDATE_TOO_SMALL,
            "conv-languages", steps=400, about="Adam's epsilon is 1e8, for 1e-8"),
    Program("conv-metal-averages", partial(_metal, change=models.averages), ADAM, S.POOR_INITIALISATION, "conv-metal",
            steps=350, about="all units of a layer begin as the mean of its inputs, and stay alike"),
    Program("conv-sky-limit-in-bytes", partial(_sky, model=partial(models.telescope, limit=12.0)), ADAM, S.DEAD_UNITS,
            "conv-sky", steps=400, about="a limit for images from 0 to 255, before a ReLU, where they end at 1"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
