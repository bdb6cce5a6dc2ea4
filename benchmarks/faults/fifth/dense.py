"""Fully connected networks, others than those of the first four generations."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.dense import mlp
from benchmarks.faults.fifth import dense_data as drawn
from benchmarks.faults.fifth import dense_models as models
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.02, 0.04)

_concrete = partial(fit, model=partial(mlp, width=48, act=nn.Tanh), batch=64)
_hash = partial(fit, split=data.digits, batch=32)
_demand = partial(fit, split=drawn.demand, model=partial(mlp, width=64), batch=64, optimizer="adamw",
                  group={"weight_decay": 0.01})  # fmt: skip
_costs = partial(fit, split=drawn.costs, batch=64)
_activity = partial(fit, split=drawn.activity, change=models.he, batch=64)
_noisy = partial(fit, split=data.digits, batch=48, optimizer="adamw")
_load = partial(fit, split=drawn.load, model=partial(mlp, width=32), batch=64, optimizer="momentum")
_credit = partial(fit, split=drawn.credit, model=partial(mlp, width=64, dropout=0.1), batch=64)
_gestures = partial(fit, split=drawn.gestures, model=partial(mlp, width=64), batch=64, schedule=cosine(450))
_pilot = partial(fit, split=drawn.pilot, model=partial(mlp, width=64, depth=3), batch=64, optimizer="nesterov")

HEALTHY = (
    Program("dense-concrete", partial(_concrete, split=drawn.concrete), ADAM, steps=450),
    Program("dense-hash", partial(_hash, model=models.Hash), ADAM, steps=480,
            about="a tanh that grows three times as steep in training"),
    Program("dense-demand", partial(_demand, loss=F.l1_loss), ADAM, steps=500),
    Program("dense-monotone", partial(_costs, model=models.monotone), (5e-3, 1e-2), steps=450),
    Program("dense-activity", partial(_activity, model=partial(mlp, width=48, depth=8, act=models.Swish)), (1e-3, 2e-3),
            steps=500),
    Program("dense-noisy-code", partial(_noisy, model=models.Noisy), ADAM, steps=450),
    Program("dense-load", _load, SGD, steps=500),
    Program("dense-credit", partial(_credit, schedule=lambda step: min(1.0, step / 6)), ADAM, steps=600),
    Program("dense-gestures", _gestures, ADAM, steps=450),
    Program("dense-pilot", _pilot, SGD, steps=500),
)  # fmt: skip

FAULTY = (
    Program("dense-concrete-inverse-transform", partial(_concrete, split=partial(drawn.concrete, inverse=True)), ADAM,
            S.SATURATED_UNITS, "dense-concrete", steps=450,
            about="inverse_transform() in place of transform(): kilograms times their spread, before a tanh"),
    Program("dense-hash-steeper-by-batch", partial(_hash, model=partial(models.Hash, every=1)), ADAM, S.SATURATED_UNITS,
            "dense-hash", steps=480, onset=20,
            about="a tanh that grows steeper by a tenth with every batch, where an epoch was meant"),
    Program("dense-demand-percentage", partial(_demand, loss=models.percentage), ADAM, S.NON_FINITE, "dense-demand",
            steps=500, about="the percentage error, of days on which nothing was sold: a division by 0"),
    Program("dense-monotone-falling", partial(_costs, model=partial(models.monotone, sign=-1.0)), (5e-3, 1e-2),
            S.DEAD_UNITS, "dense-monotone", steps=450,
            about="hidden weights are kept negative, inputs are positive: nothing comes through a ReLU"),
    Program("dense-activity-factor-lost", partial(_activity, model=partial(mlp, width=48, depth=8,
            act=partial(models.Swish, times=False))), (1e-3, 2e-3), S.VANISHING_DEPTH, "dense-activity", steps=500,
            about="x * sigmoid(x) loses its x: eight layers of sigmoids"),
    Program("dense-noisy-code-sample", partial(_noisy, model=partial(models.Noisy, reparametrized=False)), ADAM,
            S.NO_GRADIENT, "dense-noisy-code", steps=450, about="sample() in place of rsample(): nothing passes"),
    Program("dense-load-decay-as-momentum", partial(_load, group={"momentum": 0.999}), SGD, S.OSCILLATING_LOSS,
            "dense-load", steps=500,
            about="the decay of an average of weights, 0.999, is handed to SGD as its momentum, and nothing is damped"),
    Program("dense-credit-warm-up-without-end", partial(_credit, schedule=lambda step: step / 6), ADAM,
            S.UPDATE_TOO_LARGE, "dense-credit", steps=600, onset=7,
            about="step / 6 without min(1, .): the rate rises for ever, to a hundred times what was meant"),
    Program("dense-gestures-root-of-inputs", partial(_gestures, change=models.root_of_inputs), ADAM,
            S.POOR_INITIALISATION, "dense-gestures", steps=450,
            about="weights are drawn times the root of the number of inputs, not divided by it"),
    Program("dense-pilot-weight-for-bias", partial(_pilot, change=models.weight_for_bias), SGD, S.POOR_INITIALISATION,
            "dense-pilot", steps=500, about="all weights begin at zero, and the biases are drawn"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
