"""Autoencoders and denoisers, others than before: the score is the share of the variance that comes back."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Adam

from benchmarks.faults.fifth import autoencoder_data as drawn
from benchmarks.faults.fifth import autoencoder_models as models
from benchmarks.faults.program import Program
from benchmarks.faults.second.autoencoder_models import stack
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD, DELTA = (1e-3, 2e-3), (0.01, 0.02), (0.5, 1.0)
DEEP = (48, 40, 32, 8, 32, 40, 48)

_fields = partial(fit, split=drawn.fields, model=models.clouds, batch=32)
_chords = partial(fit, split=drawn.chords, batch=64, loss=F.binary_cross_entropy_with_logits,
                  predict=lambda network, x: network(x).sigmoid())  # fmt: skip
_dials = partial(fit, model=partial(stack, sizes=(64, 12, 64), act=nn.Tanh), batch=50)
_plant = partial(fit, split=drawn.plant, batch=64, optimizer="adamw", group={"weight_decay": 0.01})
_articles = partial(fit, split=drawn.articles, loss=models.told, predict=models.shares, batch=80)
_motions = partial(fit, split=drawn.motions, batch=64)
_yields = partial(fit, split=drawn.yields, model=partial(stack, sizes=DEEP), batch=64, optimizer="momentum")
_gratings = partial(fit, split=drawn.gratings, model=partial(stack, sizes=(96, 24, 96), act=nn.GELU), batch=70,
                    on_batch=drawn.blurred, optimizer="adamw")  # fmt: skip
_loads = partial(models.by_delta, split=drawn.loads)

HEALTHY = (
    Program("autoencoder-fields", _fields, (2e-3, 4e-3), steps=350, about="noisy inputs; the loss rests early"),
    Program("autoencoder-chords", partial(_chords, model=models.rolled), (2e-3, 4e-3), steps=450),
    Program("autoencoder-dials", partial(_dials, split=drawn.dials), (2e-3, 4e-3), steps=500),
    Program("autoencoder-plant", partial(_plant, model=models.scaling), ADAM, steps=400,
            about="ten blocks without norms, each of which adds little"),
    Program("autoencoder-articles", partial(_articles, model=models.Topical), (2e-3, 4e-3), steps=500,
            about="noise in the code; a loss that rests high"),
    Program("autoencoder-motions", partial(_motions, model=models.Swinging), (2e-3, 4e-3), steps=500),
    Program("autoencoder-yields", partial(_yields, change=models.he), SGD, steps=500),
    Program("autoencoder-gratings", partial(_gratings, schedule=partial(models.exponential, 30, 0.9)), (2e-3, 4e-3),
            steps=600, about="noise at the input; a rate that falls a little after each epoch"),
    Program("autoencoder-loads", _loads, DELTA, steps=600, about="a learning rate of 1, which Adadelta is meant for"),
)  # fmt: skip

FAULTY = (
    Program("autoencoder-fields-bytes", partial(_fields, on_batch=partial(drawn.as_bytes, 320, 326)), (2e-3, 4e-3),
            S.LOSS_SPIKE, "autoencoder-fields", steps=350, onset=320,
            about="seven batches of a shard that was never divided by 255"),
    Program("autoencoder-chords-prior", partial(_chords, model=partial(models.rolled, share=0.01, everywhere=True)),
            (2e-3, 4e-3), S.DEAD_UNITS, "autoencoder-chords", steps=450,
            about="the last layer's bias of -log(99), for rare classes, is set in each ReLU layer"),
    Program("autoencoder-dials-bytes", partial(_dials, split=partial(drawn.dials, divided=False)), (2e-3, 4e-3),
            S.SATURATED_UNITS, "autoencoder-dials", steps=500,
            about="Normalize(0.5, 0.5) of bytes, without ToTensor() before it: up to 509 into tanh units"),
    Program("autoencoder-plant-over-tenth", partial(_plant, model=partial(models.scaling, divides=True)), ADAM,
            S.EXPLODING_DEPTH, "autoencoder-plant", steps=400,
            about="x + branch / 0.1 in place of branch * 0.1, ten times in a row"),
    Program("autoencoder-articles-log", partial(_articles, model=partial(models.Topical, logarithm=torch.log)),
            (2e-3, 4e-3), S.NON_FINITE, "autoencoder-articles", steps=500,
            about="log in place of log1p, of words that an article has not"),
    Program("autoencoder-motions-data", partial(_motions, model=partial(models.Swinging, as_data=True)), (2e-3, 4e-3),
            S.NO_GRADIENT, "autoencoder-motions", steps=500, about="decoder(code.data): nothing gets to the encoder"),
    Program("autoencoder-yields-siren", partial(_yields, change=models.as_siren), SGD, S.POOR_INITIALISATION,
            "autoencoder-yields", steps=500, about="SIREN's weights, a thirtieth, in eight layers of ReLU"),
    Program("autoencoder-gratings-each-batch", partial(_gratings, schedule=partial(models.exponential, 1, 0.9)),
            (2e-3, 4e-3), S.SLOW_CONVERGENCE, "autoencoder-gratings", steps=600,
            about="scheduler.step() after each batch, which was meant for each epoch"),
    Program("autoencoder-loads-adam", partial(_loads, optimizer=Adam), DELTA, S.UPDATE_TOO_LARGE, "autoencoder-loads",
            steps=600, about="Adam in place of Adadelta, at Adadelta's rate"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
