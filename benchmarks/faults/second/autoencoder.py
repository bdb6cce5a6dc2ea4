"""Autoencoders, others than those of the first generation: the score is the share of the variance that comes back."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.planting import gain
from benchmarks.faults.program import Program
from benchmarks.faults.second import autoencoder_models as models
from benchmarks.faults.second.dense_models import fit
from gradguard.detect import Symptom


def _image(network: nn.Module, x: Tensor) -> Tensor:
    return network(x)[:, : x.shape[1]]


S = Symptom
ADAM = (2e-3, 4e-3)
NARROWING = (56, 48, 40, 32, 24, 12, 24, 32, 40, 48, 56)

_spectra = partial(fit, split=models.spectra, optimizer="adamw", batch=100,
                   model=partial(models.stack, sizes=(36, 6, 36)))  # fmt: skip
_penalised = partial(fit, split=models.images, model=models.Penalised, predict=_image, batch=50)
_shortcuts = partial(fit, split=partial(models.images, unit=False), batch=64)
_sines = partial(fit, split=partial(models.images, unit=False), batch=50,
                 model=partial(models.stack, sizes=NARROWING, act=models.Sine))  # fmt: skip
_code = partial(fit, split=partial(models.images, unit=False), batch=40)
_masked = partial(fit, split=models.standard, model=partial(models.stack, sizes=(96, 48), act=nn.GELU), batch=64,
                  on_batch=models.hidden)  # fmt: skip
_table = partial(fit, split=models.table, model=partial(models.stack, sizes=(20, 7, 20), act=nn.Tanh), batch=142,
                 optimizer="sgd", loss=F.smooth_l1_loss)  # fmt: skip
_logits = partial(fit, split=models.images, model=partial(models.stack, sizes=(48, 16, 48), act=nn.Tanh), batch=80,
                  optimizer="momentum", predict=lambda network, x: network(x).sigmoid(),
                  loss=F.binary_cross_entropy_with_logits)  # fmt: skip

HEALTHY = (
    Program("autoencoder-spectra", _spectra, ADAM, steps=500),
    Program("autoencoder-penalised", partial(_penalised, loss=models.penalty(3e-4)), ADAM, steps=500,
            about="an L1 penalty: most of a wide code is off, and each unit on for some images"),
    Program("autoencoder-shortcuts", partial(_shortcuts, model=models.shortcuts), (3e-3, 5e-3), steps=220,
            about="sixteen blocks that do nothing at the start"),
    Program("autoencoder-sines", partial(_sines, change=gain(1.4)), (1e-3, 2e-3), steps=400,
            about="eleven layers of sines"),
    Program("autoencoder-code", partial(_code, model=models.Code), ADAM, steps=500,
            about="a tanh that is steep on purpose: half of the code is near its ends"),
    Program("autoencoder-strongest", partial(fit, split=models.images, model=models.strongest, batch=64), ADAM,
            steps=400, about="nine units in ten are off, others for each image"),
    Program("autoencoder-masked", _masked, ADAM, steps=500, about="half of the pixels are hidden: the loss rests high"),
    Program("autoencoder-again", models.again, ADAM, steps=350, about="a frozen encoder, which was trained before"),
    Program("autoencoder-table", _table, (1.0, 1.5), steps=600,
            about="plain descent at a rate that looks high; few data"),
    Program("autoencoder-logits", _logits, (0.5, 1.0), steps=600, about="a high rate, a loss that rests high"),
)  # fmt: skip

FAULTY = (
    Program("autoencoder-spectra-drawn", partial(_spectra, change=models.drawn), ADAM, S.POOR_INITIALISATION,
            "autoencoder-spectra", steps=500, about="weights from randn() as they are"),
    Program("autoencoder-spectra-repeated", partial(_spectra, change=models.repeated), ADAM, S.POOR_INITIALISATION,
            "autoencoder-spectra", steps=500, about="a code that is one unit, repeated"),
    Program("autoencoder-overpenalised", partial(_penalised, loss=models.penalty(0.1)), ADAM, S.DEAD_UNITS,
            "autoencoder-penalised", steps=500, about="an L1 penalty that shuts the code"),
    Program("autoencoder-shortcuts-halved", partial(_shortcuts, model=partial(models.shortcuts, share=0.5)),
            (3e-3, 5e-3), S.VANISHING_DEPTH, "autoencoder-shortcuts", steps=220,
            about="a mean in place of a sum in sixteen blocks"),
    Program("autoencoder-sines-loud", partial(_sines, change=gain(4.5)), (1e-3, 2e-3), S.EXPLODING_DEPTH,
            "autoencoder-sines", steps=400, about="weights three times as large in eleven layers of sines"),
    Program("autoencoder-code-steep", partial(_code, model=partial(models.Code, steep=300.0)), ADAM, S.SATURATED_UNITS,
            "autoencoder-code", steps=500, about="the steepness of the end of an annealing, from the start"),
    Program("autoencoder-masked-constant", partial(_masked, split=partial(models.standard, least=0.0)), ADAM,
            S.NON_FINITE, "autoencoder-masked", steps=500, about="divided by a deviation that is 0 for some pixels"),
    Program("autoencoder-table-swinging", _table, (30.0, 40.0), S.OSCILLATING_LOSS, "autoencoder-table", steps=600,
            about="a rate 30 times as high: it overshoots"),
    Program("autoencoder-table-share", partial(_table, loss=lambda out, y: F.smooth_l1_loss(out, y) / 142), (1.0, 1.5),
            S.SLOW_CONVERGENCE, "autoencoder-table", steps=600, about="a mean that is divided by the batch size again"),
    Program("autoencoder-logits-sum", partial(_logits,
            loss=partial(F.binary_cross_entropy_with_logits, reduction="sum")), (0.5, 1.0), S.UPDATE_TOO_LARGE,
            "autoencoder-logits", steps=600, about="a sum over 5,120 pixels at the rate of a mean"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
