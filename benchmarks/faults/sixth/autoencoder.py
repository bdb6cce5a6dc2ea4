"""Autoencoders, others than those of the first five generations: the score is the share of variance that comes back."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.faults.program import Program
from benchmarks.faults.second.autoencoder_models import stack
from benchmarks.faults.second.dense_models import fit
from benchmarks.faults.sixth import autoencoder_data as drawn
from benchmarks.faults.sixth import autoencoder_models as models
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.1, 0.2)

_turbines = partial(fit, split=drawn.turbines, batch=64, loss=models.evidence, predict=models.picture)
_vibrations = partial(fit, model=partial(stack, sizes=(64, 16, 64), act=nn.Tanh), batch=64)
_baskets = partial(fit, split=drawn.baskets, batch=64, optimizer="adamw", group={"weight_decay": 0.01})
_outfits = partial(fit, split=drawn.outfits, batch=64)
_quakes = partial(fit, split=drawn.quakes, model=partial(stack, sizes=(64, 12, 64), act=nn.GELU), batch=64)
_census = partial(models.on_plateau, split=drawn.census, model=partial(stack, sizes=(32, 6, 32), act=nn.ELU), batch=64)
_stains = partial(fit, split=drawn.stains, model=models.spots, batch=32)

HEALTHY = (
    Program("autoencoder-turbines", partial(_turbines, model=partial(models.Uncertain, positive=F.softplus)), ADAM,
            steps=500, about="noise in the code"),
    Program("autoencoder-vibrations", partial(_vibrations, split=drawn.vibrations), ADAM, steps=500,
            about="noise at the input: the loss rests early"),
    Program("autoencoder-baskets", partial(_baskets, model=models.buying), ADAM, steps=500),
    Program("autoencoder-outfits", partial(_outfits, model=models.Categorical), (3e-3, 6e-3), steps=600,
            about="choices by chance, which the loss has to bear"),
    Program("autoencoder-quakes", partial(_quakes, optimizer="nesterov"), SGD, steps=500),
    Program("autoencoder-census", _census, ADAM, steps=500, about="a rate that is halved where the loss rests"),
    Program("autoencoder-stains", partial(_stains, change=models.he_uniform), ADAM, steps=400),
)  # fmt: skip

FAULTY = (
    Program("autoencoder-turbines-root", partial(_turbines, model=partial(models.Uncertain,
            positive=torch.sqrt)), ADAM, S.NON_FINITE, "autoencoder-turbines", steps=500,
            about="the deviation is the root of what may be negative, where it was the softplus"),
    Program("autoencoder-vibrations-backward", partial(_vibrations, split=partial(drawn.vibrations, norm="backward")),
            ADAM, S.SATURATED_UNITS, "autoencoder-vibrations", steps=500,
            about="rfft() with its default norm, 512 times as large, before a tanh"),
    Program("autoencoder-baskets-log-softmax", partial(_baskets, model=partial(models.buying, logarithm=True)), ADAM,
            S.DEAD_UNITS, "autoencoder-baskets", steps=500,
            about="a log_softmax, which is never above 0, in front of the code's ReLU"),
    Program("autoencoder-outfits-argmax", partial(_outfits, model=partial(models.Categorical, hard=True)), (3e-3, 6e-3),
            S.NO_GRADIENT, "autoencoder-outfits", steps=600,
            about="one_hot(argmax()) in place of gumbel_softmax(): nothing gets to the encoder"),
    Program("autoencoder-quakes-recipe", partial(_quakes, optimizer="adam"), SGD, S.UPDATE_TOO_LARGE,
            "autoencoder-quakes", steps=500, about="Adam in place of SGD, and the rate of SGD was kept"),
    Program("autoencoder-census-mode", partial(_census, mode="max"), ADAM, S.SLOW_CONVERGENCE, "autoencoder-census",
            steps=500, about="ReduceLROnPlateau is told mode='max' of a loss: the rate is halved each 11 steps"),
    Program("autoencoder-stains-uniform", partial(_stains, change=models.uniform), ADAM, S.POOR_INITIALISATION,
            "autoencoder-stains", steps=400, about="nn.init.uniform_(weight), which is between 0 and 1 unless told"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
