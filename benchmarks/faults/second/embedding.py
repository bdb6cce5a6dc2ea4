"""Programs upon tables: word2vec, sales, clicks, places of words, likings, rankings, topics, language and others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second.embedding_data import (
    clicks,
    contexts,
    grammar,
    likings,
    places,
    preferences,
    reviews,
    seasons,
    sessions,
    topics,
    visits,
)
from benchmarks.faults.second.embedding_models import (
    Language,
    Linear,
    Machine,
    Metric,
    Placed,
    Ranking,
    Review,
    Sales,
    Seasons,
    Session,
    SkipGram,
)
from gradguard.detect import Symptom


def learn(
    model: Callable[[], nn.Module],
    split: Callable[[], Split],
    lr: float,
    *,
    fill: Callable[[Any], Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a model, change it, train it."""
    built = model()
    if fill:
        with torch.no_grad():
            fill(built)
    return supervised(built, split(), lr, **loop)


def sparing(lr: float, *, cost: float) -> Loop:
    """Train on sessions, where active hidden units cost something."""
    model = Session()
    active: list[Tensor] = []
    model.body[1].register_forward_hook(lambda module, args, out: active.append(out))

    def loss(out: Tensor, y: Tensor) -> Tensor:
        spent = active[-1].sum(1).mean()
        active.clear()
        return F.multi_margin_loss(out, y) + cost * spent

    return supervised(model, sessions(), lr, loss=loss, batch=48)


def unfrozen(lr: float, *, at: int = 120) -> Loop:
    """Train the layers upon vectors that were learnt before, then the vectors too, at a tenth of the learning rate."""
    model = Review(learnt=2.0)
    model.table.requires_grad_(False)
    groups = [{"params": list(model.body.parameters())}, {"params": list(model.table.parameters()), "lr": lr / 10}]

    def thaw(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        model.table.requires_grad_(step >= at)
        return x, y

    return supervised(model, reviews(), lr, params=groups, on_batch=thaw, batch=32)


def common(until: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Give common words alone in the first steps."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        kept = (x < 24).all(1) | (step > until)
        return x[kept], y[kept]

    return change


def unscaled(first: int, last: int, factor: float) -> Callable[[int, nn.Module], None]:
    """Leave the gradients of some steps as they were scaled for float16."""

    def change(step: int, model: nn.Module) -> None:
        for p in model.parameters():
            if first <= step <= last and p.grad is not None:
                p.grad.mul_(factor)

    return change


def logarithmic(out: Tensor, y: Tensor, *, plus: float = 1.0) -> Tensor:
    """Give the squared error of logarithms."""
    return ((out + plus).log() - (y + plus).log()).square().mean()


def zeros(model: SkipGram) -> None:
    """Let both tables start at zero."""
    model.words.weight.zero_()


def alike(model: Metric) -> None:
    """Give all items the same vector."""
    model.items.weight.fill_(1.0)


def as_mean(model: Machine) -> None:
    """Hand in the standard deviation where the mean belongs, as ``normal_(weight, 0.1)`` does."""
    for table in model.vectors:
        table.get_parameter("weight").normal_(0.1)


def headless(model: Review) -> None:
    """Freeze the head as it was drawn."""
    model.body[2].requires_grad_(False)


S = Symptom
_P = Program
_skip = partial(learn, SkipGram, contexts, batch=128)
_sales = partial(learn, Sales, visits, optimizer="adamw", loss=logarithmic)
_clicks = partial(learn, Machine, clicks, optimizer="adagrad", batch=128)
_places = partial(learn, Placed, places, batch=32)
_metric = partial(learn, Metric, likings, loss=partial(F.multi_margin_loss, margin=0.5))
_ranking = partial(learn, Ranking, preferences, optimizer="nesterov", batch=100)
_looked_up = partial(learn, partial(Ranking, data=True), preferences, optimizer="nesterov", batch=100)
_linear = partial(learn, Linear, topics, optimizer="sgd", batch=256)
_seasons = partial(learn, Seasons, seasons, optimizer="rmsprop")
_years = partial(learn, Seasons, partial(seasons, scaled=False), optimizer="rmsprop")
_smooth = partial(F.cross_entropy, label_smoothing=0.1)
_language = partial(learn, Language, grammar, optimizer="adamw", loss=_smooth, schedule=cosine(500, 100))

PROGRAMS: tuple[Program, ...] = (
    _P("embedding-skipgram", _skip, (3e-3, 1e-2), steps=600, about="one table starts at zero, the other near it"),
    _P(
        *("embedding-skipgram-curriculum", partial(_skip, on_batch=common(250)), (3e-3, 1e-2)),
        steps=700,
        about="most rows get no gradient before step 250, when rare words come and the loss jumps",
    ),
    _P("embedding-sales", _sales, (3e-3, 1e-2), steps=500, about="dropout and counts: the loss stays noisy"),
    _P("embedding-clicks", _clicks, (0.05, 0.1), steps=500, about="Adagrad: a large rate, and steps ever smaller"),
    _P("embedding-places", _places, (2e-3, 4e-3), steps=500, about="tanh units upon sums of two tables"),
    _P("embedding-metric", _metric, (5e-3, 1e-2), steps=500, about="in the end most triples give no gradient"),
    _P("embedding-ranking", _ranking, (1.0, 2.0), steps=500, about="rates of 1 and 2, as a row is in few examples"),
    _P(
        *("embedding-topics", _linear, (0.01, 0.015)),
        steps=350,
        about="half the rate at which a word in all texts makes it swing; three labels in ten are drawn",
    ),
    _P("embedding-seasons", _seasons, (2e-3, 4e-3), steps=500, about="tanh units, RMSprop, few rows much used"),
    _P("embedding-review-thawed", unfrozen, (5e-3, 1e-2), steps=400, about="vectors learnt before, frozen to step 120"),
    _P(
        *("embedding-review-headless", partial(learn, Review, reviews, fill=headless), (5e-3, 1e-2)),
        steps=400,
        about="the head is frozen on purpose",
    ),
    _P(
        *("embedding-language", _language, (5e-3, 1e-2)),
        steps=500,
        about="warm-up, a rate that falls to 0, a loss that rests at its smoothing",
    ),
    _P("embedding-sessions", partial(sparing, cost=1e-4), (3e-3, 6e-3), steps=500, about="nine rows in ten never move"),
    _P(
        *("embedding-skipgram-zeros", partial(_skip, fill=zeros), (3e-3, 1e-2), S.POOR_INITIALISATION),
        *("embedding-skipgram", 600),
        about="both tables zero: each gives the other no gradient",
    ),
    _P(
        *("embedding-metric-alike", partial(_metric, fill=alike), (5e-3, 1e-2), S.POOR_INITIALISATION),
        *("embedding-metric", 500),
        about="all items start with one vector",
    ),
    _P(
        *("embedding-clicks-as-mean", partial(_clicks, fill=as_mean), (0.05, 0.1), S.POOR_INITIALISATION),
        *("embedding-clicks", 500),
        about="normal_(weight, 0.1): that is the mean, and the deviation is 1",
    ),
    _P(
        *("embedding-sessions-sparing", partial(sparing, cost=0.1), (3e-3, 6e-3), S.DEAD_UNITS),
        *("embedding-sessions", 500),
        about="a penalty of active units a thousand times too large",
    ),
    _P(
        *("embedding-seasons-years", _years, (2e-3, 4e-3), S.SATURATED_UNITS, "embedding-seasons", 500),
        about="year and price as they are, beside vectors, into tanh units",
    ),
    _P(
        *("embedding-clicks-leaping", _clicks, (50.0, 100.0), S.UPDATE_TOO_LARGE, "embedding-clicks", 500),
        about="learning rate times 1000",
    ),
    _P(
        *("embedding-language-leaping", _language, (2.0, 4.0), S.UPDATE_TOO_LARGE, "embedding-language", 500),
        about="learning rate times 400",
    ),
    _P(
        *("embedding-topics-swinging", _linear, (0.15, 0.2), S.OSCILLATING_LOSS, "embedding-topics", 350),
        about="learning rate times 15: along the word that all texts have, each step overshoots",
    ),
    _P(
        *("embedding-ranking-slow", _ranking, (3e-3, 6e-3), S.SLOW_CONVERGENCE, "embedding-ranking", 500),
        about="Adam's learning rate under SGD",
    ),
    _P(
        *("embedding-language-warming", partial(_language, schedule=lambda step: step / 1e9), (5e-3, 1e-2)),
        *(S.UPDATE_TOO_SMALL, "embedding-language", 500),
        about="a warm-up over a billion steps, as they were counted in words",
    ),
    _P(
        *("embedding-ranking-data", _looked_up, (1.0, 2.0), S.NO_GRADIENT),
        *("embedding-ranking", 500),
        about="rows are looked up in weight.data",
    ),
    _P(
        *("embedding-sales-of-none", partial(_sales, loss=partial(logarithmic, plus=0.0)), (3e-3, 1e-2)),
        *(S.NON_FINITE, "embedding-sales", 500),
        about="the logarithm of sales, which may be 0",
    ),
    _P(
        *("embedding-ranking-unscaled", partial(_ranking, on_gradients=unscaled(460, 463, 256.0)), (1.0, 2.0)),
        *(S.LOSS_SPIKE, "embedding-ranking"),
        steps=500,
        onset=460,
        about="four steps with gradients that are still scaled by 256",
    ),
)
