"""Autoencoders, others than before: the score is the share of the variance that comes back."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from benchmarks.faults.program import Program
from benchmarks.faults.second.autoencoder_models import stack
from benchmarks.faults.second.dense_models import fit
from benchmarks.faults.third import autoencoder_models as models
from gradguard.detect import Symptom


def _image(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)[:, : x.shape[1]]


S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.05, 0.1)

_minerals = partial(fit, split=models.minerals, batch=64)
_parts = partial(fit, split=models.ink, model=models.parts, batch=48)
_absorbance = partial(fit, batch=75, optimizer="nesterov", model=partial(stack, sizes=(30, 9, 30), act=nn.Tanh))
_relative = partial(fit, split=models.histograms, model=partial(stack, sizes=(40, 14, 40), act=nn.Mish), batch=60)
_tides = partial(fit, split=models.tides, model=partial(stack, sizes=(40, 10, 40), act=nn.GELU), batch=90)
_grain = partial(fit, split=models.grain, batch=70, optimizer="momentum",
                 model=partial(stack, sizes=(48, 20, 48), act=nn.LeakyReLU))  # fmt: skip

HEALTHY = (
    Program("autoencoder-minerals", partial(_minerals, model=models.unmixing), (3e-3, 5e-3), steps=500,
            about="a code of shares, most of which are near zero"),
    Program("autoencoder-parts", partial(_parts, on_gradients=partial(models.project, 1.0)), ADAM, steps=450,
            about="weights are brought back to zero whenever they would be negative, and many stay there"),
    Program("autoencoder-absorbance", partial(_absorbance, split=models.absorbance), SGD, steps=500),
    Program("autoencoder-relative", partial(_relative, loss=partial(models.relative, 0.3)), ADAM, steps=500,
            about="gradients that change their sign and not their size"),
    Program("autoencoder-tides", _tides, ADAM, steps=450),
    Program("autoencoder-grain", _grain, (0.1, 0.2), steps=500,
            about="flat patches: most of the variance is in a few images"),
    Program("autoencoder-quantised", partial(fit, split=models.ink, model=models.Quantised, predict=_image, batch=48,
            loss=models.quantising), ADAM, steps=400,
            about="many of the vectors are never chosen and have no gradient; the loss rises on its way"),
)  # fmt: skip

FAULTY = (
    Program("autoencoder-minerals-all-shares", partial(_minerals, model=partial(models.unmixing, act=models.Softmax)),
            (3e-3, 5e-3), S.VANISHING_DEPTH, "autoencoder-minerals", steps=500,
            about="a softmax behind each hidden layer, and not behind the code alone"),
    Program("autoencoder-parts-negative", partial(_parts, on_gradients=partial(models.project, -1.0)), ADAM,
            S.DEAD_UNITS, "autoencoder-parts", steps=450,
            about="the encoder's weights are brought to the wrong side of zero, and no ReLU is on for positive pixels"),
    Program("autoencoder-absorbance-by-variance", partial(_absorbance, split=partial(models.absorbance,
            by_variance=True)), SGD, S.SATURATED_UNITS, "autoencoder-absorbance", steps=500,
            about="small inputs are divided by their variance in place of their deviation, before a tanh"),
    Program("autoencoder-relative-to-zero", partial(_relative, loss=partial(models.relative, 0.0)), ADAM,
            S.NON_FINITE, "autoencoder-relative", steps=500, about="an error relative to bins that are empty"),
    Program("autoencoder-tides-epsilon", partial(_tides, group={"eps": 1.0}), ADAM, S.SLOW_CONVERGENCE,
            "autoencoder-tides", steps=450, about="Adam with an epsilon of 1, as it was for Inception"),
    Program("autoencoder-grain-sparse", partial(_grain, change=models.mostly_empty), (0.1, 0.2), S.POOR_INITIALISATION,
            "autoencoder-grain", steps=500, about="nn.init.sparse_ of 0.95: one weight in twenty, of 0.01"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
