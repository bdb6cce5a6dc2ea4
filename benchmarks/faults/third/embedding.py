"""Programs upon tables: hashed letters, facts, bins, an adaptive softmax, searches, adapters, a memory and others."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import biased, cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.third.embedding_data import (
    GOODS,
    articles,
    binned,
    facts,
    grey,
    languages,
    meals,
    mixed,
    notes,
    prices,
    prose,
    searches,
)
from benchmarks.faults.third.embedding_models import (
    Adapted,
    Adaptive,
    Biased,
    Binned,
    Composed,
    Deep,
    Fast,
    Levels,
    Memory,
    Search,
    Translating,
)
from gradguard.detect import Symptom


def learn(
    lr: float,
    *,
    model: Callable[[], nn.Module],
    split: Callable[[], Split],
    fill: Callable[[nn.Module], Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a model, change it, train it."""
    built = model()
    if fill:
        fill(built)
    return supervised(built, split(), lr, **loop)


def grouped(
    lr: float, *, model: Callable[[], nn.Module], split: Callable[[], Split], loop: dict[str, Any], **options: Any
) -> Loop:
    """Train by an optimizer that gets some more options."""
    built = model()
    return supervised(built, split(), lr, params=[{"params": list(built.parameters()), **options}], **loop)


def translating(lr: float, **loop: Any) -> Loop:
    """Learn facts; what lies outside the unit ball is put upon it before each step."""
    model = Translating()

    @torch.no_grad()
    def inside(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        model.things.weight.div_(model.things.weight.norm(dim=1, keepdim=True).clamp(min=1))
        return x, y

    return supervised(model, facts(), lr, on_batch=inside, batch=96, **loop)


def adaptive(lr: float, *, schedule: Callable[[int], float]) -> Loop:
    """Learn the next word."""
    model = Adaptive()
    return supervised(
        model,
        prose(),
        lr,
        loss=lambda out, y: model.end(out, y).loss,
        predict=lambda _, x: model.end.log_prob(model(x)),
        schedule=schedule,
        batch=128,
    )


def contrasted(lr: float) -> Loop:
    """Learn what is bought, against what the others of the batch buy, even if that is the same."""
    model = Search()
    return supervised(
        model,
        searches(),
        lr,
        loss=lambda out, y: F.cross_entropy(model.logits(out, y), torch.arange(len(y))),
        predict=lambda _, x: model.logits(model(x), torch.arange(GOODS)),
        optimizer="adamw",
        batch=64,
    )


def in_other_units(first: int, last: int, factor: float) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give the targets of some steps in another unit."""
    return lambda step, x, y: (x, y * factor if first <= step <= last else y)


def falling(steps: int) -> Callable[[int], float]:
    """Let the learning rate fall to zero on a line."""
    return lambda step: 1 - (step - 1) / steps


S = Symptom
_P = Program
_fast = partial(learn, model=Fast, split=languages, optimizer="sgd", batch=128, schedule=falling(600))
_deep = partial(learn, model=Deep, split=articles, optimizer="adamw", batch=100)
_bins = partial(grouped, model=Binned, split=binned, loop={"optimizer": "adamw", "batch": 32}, weight_decay=0.1)
_levels = partial(learn, split=grey, optimizer="rmsprop", batch=40)
_notes = partial(learn, split=notes, batch=50)
_memory = partial(learn, split=mixed, batch=80)
_huber = {"loss": F.smooth_l1_loss, "optimizer": "sgd", "batch": 256}
_rated = partial(grouped, model=Biased, split=meals, loop=_huber)
_meals = partial(_rated, momentum=0.9)
_prices = partial(learn, split=prices, optimizer="nesterov")
_summed = partial(F.cross_entropy, reduction="sum")
_prior = biased(-math.log((1 - 1e-4) / 1e-4))

PROGRAMS: tuple[Program, ...] = (
    _P(
        *("embedding-trigrams", _fast, (4.0, 8.0)),
        steps=600,
        about="a rate of 8 that falls to 0, a layer of zeros, buckets that no trigram falls in",
    ),
    _P("embedding-articles", _deep, (2e-3, 5e-3), steps=600, about="clicks are drawn: the loss rests high"),
    _P("embedding-facts", translating, (5e-3, 1e-2), steps=500, about="vectors are put back into the ball"),
    _P(
        *("embedding-bins", _bins, (2e-3, 5e-3)),
        steps=300,
        about="426 patients, learnt by heart, strong weight decay: a loss near zero, and tiny gradients",
    ),
    _P(
        "embedding-levels",
        partial(_levels, model=Levels),
        (2e-3, 4e-3),
        steps=250,
        about="tanh units; a mean makes them small at first",
    ),
    _P(
        *("embedding-adaptive", partial(adaptive, schedule=cosine(500, 80)), (5e-3, 1e-2)),
        steps=500,
        about="narrow layers of rare words, warm-up, a rate that falls to 0, three words in ten that nothing tells",
    ),
    _P("embedding-searches", contrasted, (5e-3, 1e-2), steps=450, about="some negatives are none; a scale that grows"),
    _P(
        "embedding-adapter",
        partial(_notes, model=Adapted),
        (3e-3, 8e-3),
        steps=450,
        about="frozen vectors; half of the adapter starts at 0",
    ),
    _P(
        "embedding-memory",
        partial(_memory, model=Memory),
        (5e-3, 1e-2),
        steps=600,
        about="a plateau, until slots are told apart",
    ),
    _P("embedding-meals", _meals, (0.5, 1.0), steps=400, about="a loss that falls a hundredfold in the first steps"),
    _P(
        "embedding-prices",
        partial(_prices, model=Composed),
        (0.1, 0.2),
        steps=500,
        about="products of rows: a slow start",
    ),
    _P(
        *("embedding-trigrams-summed", partial(_fast, loss=_summed), (4.0, 8.0), S.UPDATE_TOO_LARGE),
        *("embedding-trigrams", 600),
        about="reduction='sum': steps 128 times too large",
    ),
    _P(
        *("embedding-articles-prior", partial(_deep, fill=_prior), (2e-3, 5e-3), S.DEAD_UNITS),
        *("embedding-articles", 600),
        about="the bias of a prior of 1 in 10,000, for all layers rather than the last",
    ),
    _P(
        *("embedding-facts-epochs", partial(translating, schedule=lambda step: 0.1 ** (step - 1)), (5e-3, 1e-2)),
        *(S.UPDATE_TOO_SMALL, "embedding-facts", 500),
        onset=7,
        about="a scheduler that divides by 10 after an epoch, called after each batch",
    ),
    _P(
        *(
            "embedding-levels-summed",
            partial(_levels, model=partial(Levels, mode="sum")),
            (2e-3, 4e-3),
            S.SATURATED_UNITS,
        ),
        *("embedding-levels", 250),
        about="the sum of 64 vectors in place of their mean, into tanh units",
    ),
    _P(
        *("embedding-adaptive-warming", partial(adaptive, schedule=lambda step: step / 1e5), (5e-3, 1e-2)),
        *(S.SLOW_CONVERGENCE, "embedding-adaptive", 500),
        about="a warm-up over 100,000 steps",
    ),
    _P(
        *("embedding-adapter-empty", partial(_notes, model=partial(Adapted, least=0)), (3e-3, 8e-3), S.NON_FINITE),
        *("embedding-adapter", 450),
        about="the mean of the words of an empty note",
    ),
    _P(
        *("embedding-memory-picks", partial(_memory, model=partial(Memory, picks=True)), (5e-3, 1e-2), S.NO_GRADIENT),
        *("embedding-memory", 600),
        about="argmax in place of softmax: words and keys get no gradient",
    ),
    _P(
        *("embedding-memory-zeros", partial(_memory, model=partial(Memory, std=0.0)), (5e-3, 1e-2)),
        *(S.POOR_INITIALISATION, "embedding-memory", 600),
        about="keys and values by torch.zeros: slots stay alike",
    ),
    _P(
        *("embedding-meals-rolling", partial(_rated, momentum=0.999), (0.5, 1.0)),
        *(S.OSCILLATING_LOSS, "embedding-meals", 400),
        about="a momentum of 0.999: the mean rolls past its goal and back",
    ),
    _P(
        *("embedding-prices-tiny", partial(_prices, model=partial(Composed, std=1e-5)), (0.1, 0.2)),
        *(S.POOR_INITIALISATION, "embedding-prices", 500),
        about="rows of 0.00001, multiplied, under SGD",
    ),
    _P(
        *(
            "embedding-prices-cents",
            partial(_prices, model=Composed, on_batch=in_other_units(470, 473, 100.0)),
            (0.1, 0.2),
        ),
        *(S.LOSS_SPIKE, "embedding-prices", 500),
        onset=470,
        about="four batches with prices in cents",
    ),
)
