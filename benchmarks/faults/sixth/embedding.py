"""Sixth programs upon tables: tracks, phrases, rides, a shop, trips, lessons and what one bears not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn
from torch.nn import functional as F

from benchmarks.faults.fourth.embedding import learn
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program, Record
from benchmarks.faults.sixth import embedding_data as data
from benchmarks.faults.sixth import embedding_models as models
from gradguard.clip import NormClip
from gradguard.detect import Symptom

BATCH = 128


def shop(lr: float, *, counted: int | None = None, least: float = 1.0) -> Loop:
    """Foretell what is bought; ``counted`` examples say how often each thing is."""
    of = data.shop()
    model = models.Shop(of.y[:counted], least)
    return supervised(model, of, lr, batch=BATCH, loss=model.sampled)


def lessons(lr: float, *, limit: float) -> Loop:
    """Foretell marks, by a sum of losses rather than their mean, with clipped gradients.

    Whoever watches clips; from the first step on so does a hook that comes after it, for runs that nobody watches.
    """
    model = models.Lessons()
    loop = supervised(model, data.lessons(), lr / BATCH, optimizer="momentum", batch=BATCH, clip=NormClip(limit),
                      loss=partial(F.mse_loss, reduction="sum"))  # fmt: skip

    def again(*_: Any) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)

    def step(number: int, record: Record) -> None:
        if number == 1:
            loop.optimizers["optimizer"].register_step_pre_hook(again)
        loop.step(number, record)

    return replace(loop, step=step)


def rides(lr: float, *, divided: bool = True) -> Loop:
    """Foretell how one rides, at a rate for batches of 256 that is scaled to the batch."""
    model = models.Rides()
    rate = lr * BATCH / (256 if divided else 1)
    return supervised(model, data.rides(), rate, optimizer="adamw", batch=BATCH,
                      schedule=lambda step: min(1.0, step / 40))  # fmt: skip


ADAM = (4e-3, 8e-3)
S = Symptom
P = partial(Program, steps=450)
_tracks = partial(learn, split=data.tracks, batch=BATCH, optimizer="momentum")
_phrases = partial(learn, split=data.phrases, batch=64, optimizer="adamw")
_trips = partial(learn, split=data.trips, batch=BATCH, schedule=cosine(450))
_allergens = partial(learn, split=data.allergens, batch=BATCH)

HEALTHY = (
    P("embedding-tracks", partial(_tracks, model=models.Tracks), (0.06, 0.12), about="eight plain layers"),
    P("embedding-phrases", partial(_phrases, model=models.Phrases), ADAM, about="vectors from elsewhere, dropout"),
    P("embedding-rides", rides, (1e-2, 2e-2), about="a warm-up, decay"),
    P("embedding-shop", shop, ADAM, about="negatives are drawn: a rough loss; rare goods"),
    P("embedding-trips", partial(_trips, model=models.Trips), ADAM, about="products, and a cosine"),
    P(
        "embedding-lessons",
        partial(lessons, limit=500.0),
        (0.5, 1.0),
        steps=350,
        about="a sum of losses, so large gradients",
    ),
    P("embedding-allergens", partial(_allergens, model=models.Allergens), ADAM, about="units with a threshold"),
)  # fmt: skip

FAULTY = (
    P("embedding-tracks-half-a-swish", partial(_tracks, model=partial(models.Tracks, whole=False)), (0.06, 0.12),
      S.VANISHING_DEPTH, "embedding-tracks", about="x * sigmoid(x) has lost its x: eight sigmoids in a row"),
    P("embedding-phrases-frozen", partial(_phrases, model=partial(models.Phrases, told=False)), ADAM, S.NO_GRADIENT,
      "embedding-phrases", about="from_pretrained() freezes, unless it is told not to"),
    P("embedding-rides-undivided", partial(rides, divided=False), (1e-2, 2e-2), S.UPDATE_TOO_LARGE, "embedding-rides",
      about="the rate is multiplied by the batch, and not divided by the 256 that it is meant for"),
    P("embedding-shop-unsold", partial(shop, counted=200, least=0.0), ADAM, S.NON_FINITE, "embedding-shop",
      about="counts of 200 sales, where rare goods are not: less the logarithm of 0, for what was bought"),
    P("embedding-trips-root", partial(_trips, model=partial(models.Trips, inverse=False)), ADAM,
      S.POOR_INITIALISATION, "embedding-trips", about="rows up to the root of n, where that of 1 / n was meant"),
    P("embedding-lessons-limit", partial(lessons, limit=1.0), (0.5, 1.0), S.CLIPPED_TOO_OFTEN, "embedding-lessons",
      steps=350, about="a limit of 1, as for a mean of losses, where they are summed"),
    P("embedding-allergens-percent", partial(_allergens, model=partial(models.Allergens, threshold=10.0)), ADAM,
      S.DEAD_UNITS, "embedding-allergens", about="a threshold of 10, in percent, in place of 0.1"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
