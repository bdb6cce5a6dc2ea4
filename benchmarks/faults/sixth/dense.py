"""Fully connected networks, others than those of the first five generations."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn import functional as F

from benchmarks.faults.dense import mlp
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.dense_models import fit
from benchmarks.faults.sixth import dense_data as drawn
from benchmarks.faults.sixth import dense_models as models
from gradguard.detect import Symptom

S = Symptom
ADAM = (2e-3, 4e-3)

_turbine = partial(fit, split=drawn.turbine, model=partial(mlp, width=48, act=nn.GELU), batch=64)
_soil = partial(fit, model=partial(mlp, width=48, act=nn.Tanh), batch=64, schedule=cosine(500))
_alarms = partial(fit, split=drawn.alarms, model=partial(mlp, width=48, dropout=0.1), batch=64, optimizer="adamw",
                  group={"weight_decay": 0.01})  # fmt: skip
_visits = partial(fit, model=partial(mlp, width=64), batch=64, loss=F.smooth_l1_loss)
_scents = partial(fit, split=drawn.scents, batch=48)
_currents = partial(fit, model=models.Hats, batch=64)

HEALTHY = (
    Program("dense-turbine", _turbine, ADAM, steps=500),
    Program("dense-shoppers", models.grouped, (0.06, 0.12), steps=600, about="the rate falls on a plateau"),
    Program("dense-soil", partial(_soil, split=drawn.soil), ADAM, steps=500),
    Program("dense-alarms", partial(_alarms, change=models.prior), (1e-3, 2e-3), steps=400),
    Program("dense-visits", partial(_visits, split=drawn.visits), ADAM, steps=450),
    Program("dense-scents", partial(_scents, model=models.Directions), (3e-3, 6e-3), steps=500),
    Program("dense-currents", partial(_currents, split=drawn.currents), (1e-2, 2e-2), steps=450),
)  # fmt: skip

FAULTY = (
    Program("dense-turbine-rate-finder-stays", partial(_turbine, schedule=drawn.rate_finder), ADAM, S.UPDATE_TOO_LARGE,
            "dense-turbine", steps=500, onset=73,
            about="the search for a rate never puts the old one back: it rises a thousandfold and stays"),
    Program("dense-shoppers-plateau-of-maxima", partial(models.grouped, mode="max"), (0.06, 0.12), S.SLOW_CONVERGENCE,
            "dense-shoppers", steps=600, onset=80,
            about="a plateau of mode max, told of a loss: the rate falls as long as the loss does, to a hundredth"),
    Program("dense-soil-mean-for-spread", partial(_soil, split=partial(drawn.soil, swapped=True)), ADAM,
            S.SATURATED_UNITS, "dense-soil", steps=500,
            about="mean and spread change places: inputs are divided by means near 0, before a tanh"),
    Program("dense-alarms-counts-as-bias", partial(_alarms, change=partial(models.prior, counts=True)), (1e-3, 2e-3),
            S.POOR_INITIALISATION, "dense-alarms", steps=400,
            about="the last biases begin at how many of a class there are, not at the logarithm of their share"),
    Program("dense-visits-logarithm-late", partial(_visits, split=partial(drawn.visits, late=True)), ADAM,
            S.NON_FINITE, "dense-visits", steps=450, about="log1p() after the scaler: of numbers below -1"),
    Program("dense-scents-by-numpy", partial(_scents, model=partial(models.Directions, by_numpy=True)), (3e-3, 6e-3),
            S.NO_GRADIENT, "dense-scents", steps=500,
            about="the encoder's output is normalised by numpy, for which it was detached"),
    Program("dense-currents-in-degrees", partial(_currents, split=partial(drawn.currents, raw=True)), (1e-2, 2e-2),
            S.DEAD_UNITS, "dense-currents", steps=450,
            about="centres for standardised places, and places in degrees and days: nothing is in reach of a ReLU"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
