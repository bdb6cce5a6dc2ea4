"""Fully connected networks, others than those of the first generation."""

from __future__ import annotations

from functools import partial

from torch import nn
from torch.nn import functional as F

from benchmarks.faults import data
from benchmarks.faults.dense import mlp
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from benchmarks.faults.second import dense_data as drawn
from benchmarks.faults.second import dense_models as models
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom

S = Symptom
ADAM, NESTEROV = (2e-3, 4e-3), {"weight_decay": 1e-3, "nesterov": True}

_normed = partial(mlp, width=72, depth=3, norm=nn.BatchNorm1d)
_board = partial(fit, split=drawn.board, model=models.Fourier, optimizer="adamw", batch=128,
                 schedule=cosine(500, warmup=50))  # fmt: skip
_counts = partial(fit, split=drawn.counts, model=partial(mlp, width=48, act=nn.SiLU), batch=100,
                  loss=F.poisson_nll_loss, predict=lambda network, x: network(x).exp())  # fmt: skip
_tags = partial(fit, split=drawn.tags, model=partial(mlp, width=80, depth=3, act=nn.LeakyReLU), batch=50,
                loss=F.binary_cross_entropy_with_logits,
                predict=lambda network, x: network(x).sigmoid())  # fmt: skip
_smoothed = partial(fit, split=data.digits, model=_normed, batch=96, optimizer="momentum", group=NESTEROV,
                    loss=partial(F.cross_entropy, label_smoothing=0.15))  # fmt: skip
_sensors = partial(fit, split=drawn.sensors, model=partial(mlp, width=40, depth=3, act=nn.Tanh), batch=128,
                   optimizer="momentum", loss=F.smooth_l1_loss)  # fmt: skip
_steering = partial(fit, split=drawn.commands, model=models.steering, batch=64)
_tower = partial(fit, split=data.digits, batch=32)
_highway = partial(fit, split=data.digits, batch=40)

HEALTHY = (
    Program("dense-checkerboard", _board, ADAM, steps=500, about="sines of places, a rate that rises and falls"),
    Program("dense-siren", partial(fit, split=drawn.picture, model=models.siren, batch=200), (1e-3, 2e-3), steps=400,
            about="sines with a frequency of 12: many periods, and gradients that change sign"),
    Program("dense-highway", partial(_highway, model=models.highway), (3e-3, 5e-3), steps=220,
            about="gates that are nearly shut at the start, on purpose, and nine layers of tanh"),
    Program("dense-poisson", _counts, ADAM, steps=400, about="a loss that falls far below zero"),
    Program("dense-multilabel", _tags, ADAM, steps=450),
    Program("dense-rezero", partial(fit, split=data.digits, model=models.rezero, batch=64), ADAM, steps=300,
            about="blocks that do nothing and a head of zeros: no gradient but the head's at the first step"),
    Program("dense-growing", partial(fit, split=data.digits, model=partial(mlp, width=72, act=nn.Mish), batch=56,
            on_batch=models.growing), ADAM, steps=600, about="new classes now and then, and the loss leaps up"),
    Program("dense-parity", partial(fit, split=drawn.parity, model=partial(mlp, width=100, depth=1), batch=128,
            optimizer="momentum"), (0.05, 0.08), steps=800, about="the loss rests at a guess, then falls at once"),
    Program("dense-hinge", partial(fit, split=partial(data.clusters, 6, 16, 0.6), model=partial(mlp, width=40),
            loss=F.multi_margin_loss, batch=32), ADAM, steps=500,
            about="the loss, and each gradient, is exactly 0 once the margins are kept"),
    Program("dense-metric", partial(fit, split=data.digits, model=lambda inputs, outputs: mlp(inputs, 16, width=56),
            batch=80, loss=models.contrastive, predict=models.nearest), ADAM, steps=300,
            about="the loss cannot come near zero"),
    Program("dense-sets", partial(fit, split=drawn.sets, model=models.DeepSet, batch=48), ADAM, steps=400,
            about="the gradient reaches few points: those that are the largest"),
    Program("dense-steering", _steering, ADAM, steps=400, about="a tanh at the end, where targets are near its ends"),
    Program("dense-smoothed", _smoothed, (0.03, 0.06), steps=400,
            about="label smoothing and weight decay: the loss rests at a half of where it began"),
    Program("dense-tower", partial(_tower, model=models.tower), (1e-3, 2e-3), steps=150,
            about="25 layers: the signal grows with each, and the gradient on its way back"),
    Program("dense-tuned", models.tuned, (3e-3, 6e-3), steps=350,
            about="a body that was trained before, at a hundredth of the head's rate"),
    Program("dense-sensors", _sensors, (0.03, 0.05), steps=500),
)  # fmt: skip

FAULTY = (
    Program("dense-checkerboard-swapped", partial(_board, group={"weight_decay": 2e-3}), (0.6, 1.2), S.UPDATE_TOO_LARGE,
            "dense-checkerboard", steps=500, about="learning rate and weight decay change places"),
    Program("dense-checkerboard-blind", partial(_board, model=partial(models.Fourier, blind=True)), ADAM, S.NO_GRADIENT,
            "dense-checkerboard", steps=500, about="the hidden layers run under no_grad(), as when they are evaluated"),
    Program("dense-highway-uncarried", partial(_highway, model=partial(models.highway, carries=False)), (3e-3, 5e-3),
            S.VANISHING_DEPTH, "dense-highway", steps=220, about="what the gates should carry is forgotten"),
    Program("dense-poisson-rate", partial(_counts, loss=models.rate_of_counts), ADAM, S.NON_FINITE, "dense-poisson",
            steps=400, about="a logarithm of a rate that may be negative"),
    Program("dense-multilabel-positive", partial(_tags, change=models.positive), ADAM, S.POOR_INITIALISATION,
            "dense-multilabel", steps=450, about="weights from uniform_() as it is, between 0 and 1"),
    Program("dense-multilabel-warmup", partial(_tags, schedule=lambda step: step / 3e9), ADAM, S.UPDATE_TOO_SMALL,
            "dense-multilabel", steps=450, about="a warm-up of three billion tokens, counted in steps"),
    Program("dense-multilabel-resumed", partial(_tags, schedule=lambda step: 100.0 if 420 <= step <= 423 else 1.0),
            ADAM, S.LOSS_SPIKE, "dense-multilabel", steps=450, onset=420,
            about="resumed at step 420 with a rate that is 100 times too high for four steps"),
    Program("dense-steering-degrees", partial(_steering, split=partial(drawn.commands, degrees=True)), ADAM,
            S.SATURATED_UNITS, "dense-steering", steps=400, about="targets of up to 35 degrees for a tanh"),
    Program("dense-smoothed-shifted", partial(_smoothed, change=models.shifted), (0.03, 0.06), S.DEAD_UNITS,
            "dense-smoothed", steps=400, about="batch normalisation that ends at -8, before a ReLU"),
    Program("dense-tower-bare", partial(_tower, model=partial(models.tower, around=False)), (1e-3, 2e-3),
            S.EXPLODING_DEPTH, "dense-tower", steps=150,
            about="25 layers with batch normalisation and no shortcuts: Yang et al., 2019"),
    Program("dense-smoothed-slow", _smoothed, (3e-5, 6e-5), S.SLOW_CONVERGENCE, "dense-smoothed", steps=400,
            about="a rate that is 1,000 times lower"),
    Program("dense-sensors-seconds", partial(_sensors, split=partial(drawn.sensors, seconds=True)), (0.03, 0.05),
            S.SATURATED_UNITS, "dense-sensors", steps=500, about="one feature is the time in seconds since 1970"),
    Program("dense-sensors-alike", partial(_sensors, change=models.alike), (0.03, 0.05), S.POOR_INITIALISATION,
            "dense-sensors", steps=500, about="a layer is one unit, repeated"),
    Program("dense-sensors-swinging", _sensors, (1.0, 1.5), S.OSCILLATING_LOSS, "dense-sensors",
            steps=500, about="momentum at a rate 30 times as high"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
