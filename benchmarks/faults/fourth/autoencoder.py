"""Autoencoders and their kin, others than before: denoisers, menders, sparse dictionaries, flows and a diffusion."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.faults.fourth import autoencoder_data as drawn
from benchmarks.faults.fourth import autoencoder_models as models
from benchmarks.faults.planting import cosine, normal
from benchmarks.faults.program import Program
from benchmarks.faults.second.autoencoder_models import stack
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom


def _first(network: nn.Module, x: Tensor) -> Tensor:
    """Leave out the code, which is beside the output."""
    out: Tensor = network(x)[:, : x.shape[1]]
    return out


def _cyclic(step: int) -> float:
    """Let the learning rate rise and fall each 48 steps, to 40 times what it begins with."""
    return 1 + 39 * (1 - abs(step % 48 - 24) / 24)


S = Symptom
ADAM = (1e-3, 2e-3)

_beats = partial(fit, split=drawn.beats, model=models.filtering, batch=48)
_plates = partial(fit, split=drawn.plates, model=models.upscaling, batch=32)
_torn = partial(fit, split=drawn.torn, batch=32, optimizer="adamw", schedule=cosine(350, 30))
_dots = partial(fit, split=drawn.dots, model=models.Latent, batch=64, loss=models.bound, predict=_first)
_sensors = partial(fit, batch=80, optimizer="momentum", model=partial(stack, sizes=(24, 6, 24), act=nn.Tanh))
_ratings = partial(fit, split=drawn.ratings, model=models.rating, batch=64, on_batch=drawn.only_given,
                   group={"weight_decay": 1e-5})  # fmt: skip
_growth = partial(fit, split=drawn.growth, batch=64)
_insides = partial(fit, split=drawn.activations, batch=100, loss=models.sparse, predict=_first)
_flow = partial(models.generative, real=drawn.pinwheel, loss=models.straight, sample=models.flowing, batch=128)
_diffusion = partial(models.generative, real=drawn.circles, loss=models.noised, sample=models.denoised, batch=160,
                     optimizer=AdamW, limit=1.0)  # fmt: skip

HEALTHY = (
    Program("autoencoder-beats", _beats, (2e-3, 4e-3), steps=350),
    Program("autoencoder-plates", _plates, ADAM, steps=350),
    Program("autoencoder-torn", partial(_torn, model=models.Mending), (2e-3, 4e-3), steps=350),
    Program("autoencoder-dots", _dots, ADAM, steps=600, about="a bound with noise in the code"),
    Program("autoencoder-sensors", partial(_sensors, split=drawn.sensors), (0.1, 0.2), steps=500),
    Program("autoencoder-ratings", partial(_ratings, loss=partial(models.of_given, 1.0)), (3e-3, 6e-3), steps=600,
            about="most of the ratings aren't known, and some users have none"),
    Program("autoencoder-growth", partial(_growth, model=models.blocks), ADAM, steps=450,
            about="ten blocks of sigmoids, each of which adds to what comes in"),
    Program("autoencoder-insides", partial(_insides, model=models.Dictionary), ADAM, steps=500,
            about="a code five times as wide as the data, most of which is off"),
    Program("autoencoder-flow", _flow, (2e-3, 4e-3), steps=600, about="a loss that rests high"),
    Program("autoencoder-diffusion", _diffusion, (2e-3, 4e-3), steps=600, about="a loss that rests high; clipped"),
)  # fmt: skip

FAULTY = (
    Program("autoencoder-beats-leads-off", partial(_beats, on_batch=drawn.off(280, 287, 15.0)), (2e-3, 4e-3),
            S.LOSS_SPIKE, "autoencoder-beats", steps=350, onset=280,
            about="eight batches of a recording whose electrodes were off: all at the rail"),
    Program("autoencoder-plates-tiny-weights", partial(_plates, change=normal(1e-6)), ADAM, S.POOR_INITIALISATION,
            "autoencoder-plates", steps=350,
            about="weights drawn with a deviation of 1e-6, in five layers without norms"),
    Program("autoencoder-torn-whole-shades", partial(_torn, model=partial(models.Mending, whole=True)), (2e-3, 4e-3),
            S.NO_GRADIENT, "autoencoder-torn", steps=350, about="the output is rounded to shades before the loss"),
    Program("autoencoder-dots-rate-shared", _dots, tuple(lr / 16 for lr in ADAM), S.SLOW_CONVERGENCE,
            "autoencoder-dots", steps=600, about="the rate is divided by 16, as if so many were accumulated"),
    Program("autoencoder-sensors-as-read", partial(_sensors, split=partial(drawn.sensors, raw=True)), (0.1, 0.2),
            S.SATURATED_UNITS, "autoencoder-sensors", steps=500, about="kelvin and pascal into tanh units"),
    Program("autoencoder-diffusion-cyclic", partial(_diffusion, schedule=_cyclic), (2e-3, 4e-3), S.OSCILLATING_LOSS,
            "autoencoder-diffusion", steps=600, about="a cyclic rate with a top of 40 times as much"),
    Program("autoencoder-ratings-none-given", partial(_ratings, loss=partial(models.of_given, 0.0)), (3e-3, 6e-3),
            S.NON_FINITE, "autoencoder-ratings", steps=600, about="the mean error of users who rated nothing: 0 / 0"),
    Program("autoencoder-growth-not-added", partial(_growth, model=partial(models.blocks, adds=False)), ADAM,
            S.VANISHING_DEPTH, "autoencoder-growth", steps=450, about="ten blocks of sigmoids without their shortcuts"),
    Program("autoencoder-insides-threshold", partial(_insides, model=partial(models.Dictionary, threshold=12.0)), ADAM,
            S.DEAD_UNITS, "autoencoder-insides", steps=500,
            about="a threshold that was meant for activations before they were brought to variance 1"),
    Program("autoencoder-flow-thousandfold", _flow, (2.0, 4.0), S.UPDATE_TOO_LARGE,
            "autoencoder-flow", steps=600, about="2 and 4, which were meant in thousandths"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
