"""Fully connected networks, others than those of the first three generations."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn import functional as F

from benchmarks.faults.dense import mlp
from benchmarks.faults.fourth import dense_data as drawn
from benchmarks.faults.fourth import dense_models as models
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (1e-3, 2e-3), (0.03, 0.06)

_income = partial(fit, split=drawn.income, model=models.funnel, batch=64)
_weather = partial(fit, model=partial(mlp, width=40, act=nn.Tanh), batch=64, optimizer="momentum",
                   loss=F.smooth_l1_loss)  # fmt: skip
_arm = partial(fit, split=drawn.arm, batch=64, schedule=cosine(500))
_terrain = partial(fit, split=drawn.terrain, batch=96)
_topics = partial(fit, split=drawn.topics, batch=64, optimizer="adamw", group={"weight_decay": 0.01})
_ratings = partial(fit, split=drawn.ratings, batch=100)
_spectra = partial(fit, split=drawn.spectra, batch=80)
_genes = partial(fit, split=drawn.genes, batch=64, optimizer="adamw", schedule=lambda step: min(1.0, step / 30))

HEALTHY = (
    Program("dense-income", _income, ADAM, steps=500),
    Program("dense-weather", partial(_weather, split=drawn.weather), SGD, steps=500),
    Program("dense-arm", partial(_arm, model=models.handmade), (3e-3, 6e-3), steps=500),
    Program("dense-terrain-quantized", partial(_terrain, model=models.quantized), (3e-3, 6e-3), steps=500,
            about="rounding, past which the gradient is led on purpose"),
    Program("dense-topics", partial(_topics, model=models.reader), (3e-3, 6e-3), steps=400),
    Program("dense-ratings", partial(_ratings, model=models.Towers), (2e-3, 4e-3), steps=600),
    Program("dense-spectra", partial(_spectra, model=partial(mlp, width=48, depth=4, act=nn.GELU)), ADAM, steps=500),
    Program("dense-genes", partial(_genes, model=models.Stack), (5e-4, 1e-3), steps=260,
            about="sixteen blocks, and what they add up to is not normalised at the end"),
    Program("dense-paid", models.sparse, ADAM, steps=450, about="units are paid for, and few are on at once"),
    Program("dense-holes", models.transferred, (5e-4, 1e-3), steps=350),
)  # fmt: skip

FAULTY = (
    Program("dense-income-rate-of-adam", partial(_income, optimizer="sgd"), ADAM, S.SLOW_CONVERGENCE, "dense-income",
            steps=500, about="SGD without momentum in place of Adam, at Adam's rate"),
    Program("dense-weather-in-units", partial(_weather, split=partial(drawn.weather, raw=True)), SGD,
            S.SATURATED_UNITS, "dense-weather", steps=500,
            about="hectopascals, kelvins, degrees and years as they are, before a tanh"),
    Program("dense-arm-randn", partial(_arm, model=partial(models.handmade, scaled=False)), (3e-3, 6e-3),
            S.POOR_INITIALISATION, "dense-arm", steps=500,
            about="torch.randn(inputs, outputs) as weights, not divided by anything"),
    Program("dense-terrain-rounded", partial(_terrain, model=partial(models.quantized, through=False)), (3e-3, 6e-3),
            S.NO_GRADIENT, "dense-terrain-quantized", steps=500, about="round() as it is, which has no gradient"),
    Program("dense-topics-empty", partial(_topics, model=partial(models.reader, least=0.0)), (3e-3, 6e-3),
            S.NON_FINITE, "dense-topics", steps=400, about="documents without words, divided by their norm: 0 / 0"),
    Program("dense-ratings-both-blank", partial(_ratings, model=partial(models.Towers, blank=True)), (2e-3, 4e-3),
            S.POOR_INITIALISATION, "dense-ratings", steps=600,
            about="both factors of a product begin at zero, and neither has a gradient"),
    Program("dense-spectra-softmax", partial(_spectra, model=partial(mlp, width=48, depth=4,
            act=partial(nn.Softmax, dim=1))), ADAM, S.VANISHING_DEPTH, "dense-spectra", steps=500,
            about="a softmax after each of four layers: slopes of a fiftieth"),
    Program("dense-genes-added-twice", partial(_genes, model=partial(models.Stack, again=True)), (5e-4, 1e-3),
            S.EXPLODING_DEPTH, "dense-genes", steps=260,
            about="x + block(x), where the block has added x already: each doubles"),
    Program("dense-paid-too-dearly", partial(models.sparse, weight=1.0), ADAM, S.DEAD_UNITS, "dense-paid", steps=450,
            about="a price of 1 in place of 0.001: every unit is switched off for good"),
    Program("dense-holes-multiplier", partial(models.transferred, head_rate=10.0), (5e-4, 1e-3), S.UPDATE_TOO_LARGE,
            "dense-holes", steps=350, about="the head's rate is 10, where ten times the body's was meant"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
