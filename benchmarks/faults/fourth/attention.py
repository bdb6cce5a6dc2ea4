"""Fourth transformers: vision, forecasts, translation, tags, sets, linear attention, pointers, code and ranks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import digits
from benchmarks.faults.fourth import attention_data as data
from benchmarks.faults.fourth import attention_models as models
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program, Record
from gradguard.clip import NormClip
from gradguard.detect import Symptom


def moved(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Move images by up to a pixel to the left or to the right."""
    return x.roll(int(torch.randint(-1, 2, ())), 3), y


def seen(lr: float, *, std: float = 0.2, blind: bool = False) -> Loop:
    """Name digits; weights of the layers are drawn with a deviation, those of patches and head are left."""
    net = models.Vision(blind=blind)
    for p in net.body.parameters():
        if p.ndim == 2:
            nn.init.trunc_normal_(p, std=std, a=-2 * std, b=2 * std)
    params = [{"params": list(net.parameters()), "weight_decay": 0.05}]
    return supervised(net, digits("image"), lr, optimizer="adamw", batch=20, params=params, on_batch=moved,
                      schedule=cosine(400, 40))  # fmt: skip


def forecast(lr: float, **loop: Any) -> Loop:
    """Foretell four values."""
    place = 0.5 * models.sines(6, 32)
    net = models.Encoder(nn.Linear(4, 32), models.stack(32, 2, dropout=0.05), 4, width=32, place=place, reads="all")
    return supervised(net, data.series(), lr, batch=32, loss=F.mse_loss, **loop)


def with_missing(first: int, last: int, share: float = 0.1) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Let values of some batches be missing, and a number stand for them."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if not first <= step <= last:
            return x, y
        return tuple(of.masked_fill(torch.rand(of.shape) < share, data.MISSING) for of in (x, y))  # type: ignore

    return change


def translate(lr: float, *, by: float = 1.0) -> Loop:
    """Write rows from behind."""
    return supervised(models.Translator(), data.reversals(), lr * by, batch=48, schedule=lambda n: min(1.0, n / 40))


def noam(step: int, warmup: int = 60) -> float:
    """Let the rate rise on a line, then fall by the root of the step."""
    return min(step / warmup, math.sqrt(warmup / step))


def tag(lr: float, *, warmup: int = 60) -> Loop:
    """Tag words, with norms behind the branches."""
    body = models.stack(32, 2, act="relu", norm_first=False, dropout=0.1)
    net = models.Encoder(models.Words(data.WORDS, 32), body, data.TAGS, width=32, place=models.sines(9, 32),
                         reads="each")  # fmt: skip
    params = [{"params": list(net.parameters()), "betas": (0.9, 0.98)}]
    return supervised(net, data.sentences(), lr, batch=24, params=params, schedule=partial(noam, warmup=warmup))


def shapes(lr: float, *, carried: float = 1.0) -> Loop:
    """Name shapes."""
    return supervised(models.Shapes(data.SHAPES, carried=carried), data.shapes(), lr, batch=24)


def listen(lr: float, *, feature: models.Act = models.shifted) -> Loop:
    """Say which pulses came, and in which order."""
    body = nn.Sequential(models.Linear(24, feature), models.Linear(24, feature))
    outputs = data.PULSES * (data.PULSES - 1)
    net = models.Encoder(nn.Linear(4, 24), body, outputs, width=24, place=models.sines(12, 24))
    return supervised(net, data.pulses(), lr, optimizer="adamw", batch=32)


def point(lr: float, *, unit: float = 1.0) -> Loop:
    """Point at the offer that comes nearest."""
    return supervised(models.Pointer(2), data.offers(unit), lr, batch=64)


def write(lr: float, **group: Any) -> Loop:
    """Foretell the next character of code."""
    split, letters = data.code()
    net = models.Writer(letters)
    params = [{"params": list(net.parameters()), "weight_decay": 0.01, **group}]
    return supervised(net, split, lr, optimizer="adamw", batch=16, params=params,
                      schedule=lambda n: min(1.0, n / 30))  # fmt: skip


def limited(lr: float, *, limit: float) -> Loop:
    """Name digits by their columns, with clipped gradients.

    Whoever watches clips; from the first step on so does a hook that comes after it, for runs that nobody watches.
    """
    place = 0.5 * models.sines(8, 24)
    net = models.Encoder(nn.Linear(8, 24), models.stack(24, 1, dropout=0.05), 10, width=24, place=place)
    loop = supervised(net, data.columns(), lr, optimizer="momentum", batch=32, clip=NormClip(limit))

    def again(*_: Any) -> None:
        nn.utils.clip_grad_norm_(net.parameters(), limit)

    def step(number: int, record: Record) -> None:
        if number == 1:
            loop.optimizers["optimizer"].register_step_pre_hook(again)
        loop.step(number, record)

    return replace(loop, step=step)


def rank(lr: float) -> Loop:
    """Say at which place each number would stand if they were sorted."""
    embed = nn.Sequential(nn.Linear(1, 32), nn.GELU(), nn.Linear(32, 32))
    net = models.Encoder(embed, models.stack(32, 2), data.NUMBERS, width=32, place=None, reads="each")
    return supervised(net, data.ranks(), lr, batch=32, schedule=cosine(400, 20))


ADAM = (2e-3, 4e-3)
S = Symptom
P = partial(Program, steps=400)

HEALTHY = (
    P("transformer-vision", seen, (3e-3, 6e-3), about="a warm-up and half a cosine, moved images"),
    P("transformer-forecast", forecast, (1.5e-3, 3e-3), steps=350),
    P("transformer-translation", translate, ADAM, about="two kinds of attention; a plateau until rows are turned"),
    P("transformer-tagger", tag, ADAM, about="norms behind the branches, dropout, a rate that rises and falls"),
    P("transformer-shapes", shapes, ADAM, steps=300, about="no norms: ten branches that begin at nothing"),
    P("transformer-linear", listen, ADAM, steps=350, about="attention that is divided by its own sum"),
    P("transformer-pointer", point, (3e-3, 6e-3), steps=500, about="tanh units decide where it points at"),
    P("transformer-code", write, (4e-3, 8e-3), steps=450, about="a tied head; the loss rests high"),
    P("transformer-clipped", partial(limited, limit=2.0), (0.05, 0.1), about="a clipper that acts now and then"),
    P("transformer-ranks", rank, ADAM),
)  # fmt: skip

FAULTY = (
    P("transformer-vision-std-of-2", partial(seen, std=2.0), (3e-3, 6e-3), S.POOR_INITIALISATION,
      "transformer-vision", about="weights are drawn with a deviation of 2.0, which was to be 0.2"),
    P("transformer-vision-no-grad", partial(seen, blind=True), (3e-3, 6e-3), S.NO_GRADIENT, "transformer-vision",
      about="features are had under no_grad(), as in the code that evaluates: the head alone learns"),
    P("transformer-forecast-missing", partial(forecast, on_batch=with_missing(310, 315)), (1.5e-3, 3e-3),
      S.LOSS_SPIKE, "transformer-forecast", steps=350, onset=310,
      about="six batches in which -9999 stands for what is missing"),
    P("transformer-translation-times-tokens", partial(translate, by=288.0), ADAM, S.UPDATE_TOO_LARGE,
      "transformer-translation", about="the rate is multiplied by the tokens of a batch"),
    P("transformer-tagger-long-warm-up", partial(tag, warmup=20_000), ADAM, S.SLOW_CONVERGENCE,
      "transformer-tagger", about="a warm-up of 20,000 steps, as a large model has it, in a run of 400"),
    P("transformer-shapes-scaled-each-time", partial(shapes, carried=math.sqrt(24)), ADAM, S.EXPLODING_DEPTH,
      "transformer-shapes", steps=300, about="tokens are multiplied by the root of the width in each layer"),
    P("transformer-linear-relu", partial(listen, feature=F.relu), ADAM, S.NON_FINITE, "transformer-linear",
      steps=350, about="queries by a ReLU: where all of one are zero, its sum is zero and is divided by"),
    P("transformer-pointer-in-grams", partial(point, unit=1000.0), (3e-3, 6e-3), S.SATURATED_UNITS,
      "transformer-pointer", steps=500, about="grams in place of kilograms, before tanh units"),
    P("transformer-code-eps", partial(write, eps=1e4), (4e-3, 8e-3), S.UPDATE_TOO_SMALL, "transformer-code", steps=450,
      about="eps=1e4 in place of 1e-4: nothing moves"),
    P("transformer-clipped-to-nothing", partial(limited, limit=0.001), (0.05, 0.1), S.CLIPPED_TOO_OFTEN,
      "transformer-clipped", about="gradients are clipped to a norm of 0.001"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
