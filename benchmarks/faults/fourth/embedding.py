"""Programs upon tables: songs, entities, friends, opinions, bits, a tree, prototypes, visits, fares and others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.faults.data import Split
from benchmarks.faults.fourth import embedding_data as data
from benchmarks.faults.fourth import embedding_models as models
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom


def learn(
    lr: float,
    *,
    model: Callable[[], nn.Module],
    split: Callable[[], Split],
    fill: Callable[[nn.Module], Any] | None = None,
    group: dict[str, Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a model, change it, train it; ``group`` is what else the optimizer is told."""
    built = model()
    if fill:
        fill(built)
    return supervised(built, split(), lr, params=[{"params": list(built.parameters()), **(group or {})}], **loop)


@torch.no_grad()
def alike(model: nn.Module) -> None:
    """Fill all that is called a weight with 0.1, tables, too."""
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            nn.init.constant_(p, 0.1)


S = Symptom
ADAM = (5e-3, 1e-2)
_P = Program
_songs = partial(learn, split=data.playlists, optimizer="adamw", batch=128, schedule=cosine(400, 30))
_stores = partial(learn, model=models.Entities, split=data.stores, loss=F.mse_loss)
_friends = partial(learn, model=models.Friends, split=data.friends, optimizer="nesterov", batch=128)
_opinions = partial(learn, model=models.Opinion, split=data.opinions, batch=64)
_tastes = partial(learn, split=data.tastes, batch=128)
_tree = partial(learn, split=data.tree, batch=128)
_papers = partial(learn, split=data.papers, optimizer="adamw", batch=64)
_visits = partial(learn, model=models.Visits, optimizer="rmsprop", batch=64)
_deals = partial(learn, split=data.deals, batch=128)
_fares = partial(learn, model=models.Fares, split=data.fares, optimizer="sgd", batch=256,
                 loss=F.smooth_l1_loss)  # fmt: skip
_histories = partial(learn, model=models.History, split=data.histories, batch=128)

HEALTHY = (
    _P("embedding-playlist", partial(_songs, model=models.Playlist), ADAM, steps=400,
       about="a table that is the softmax's, too; a warm-up and half a cosine"),
    _P("embedding-stores", _stores, ADAM, steps=500),
    _P("embedding-friends", _friends, (0.4, 0.6), steps=500, about="momentum, at a rate that tables bear"),
    _P("embedding-opinions", _opinions, ADAM, steps=600, about="dropout; most pairs are seldom met"),
    _P("embedding-bits", partial(_tastes, model=models.Codes), ADAM, steps=500,
       about="signs, which hand on the gradients of a tanh"),
    _P("embedding-tree", partial(_tree, model=models.Tree), ADAM, steps=500,
       about="pairs of a node and itself get no gradient"),
    _P("embedding-prototypes", partial(_papers, model=models.Prototypes), ADAM, steps=500,
       about="a prototype that lies far away from a paper counts nothing"),
    _P("embedding-visits", partial(_visits, split=data.visits), (2e-3, 4e-3), steps=500),
    _P("embedding-crossing", partial(_deals, model=models.Crossing), ADAM, steps=500,
       about="eight blocks of sigmoids, with paths around them"),
    _P("embedding-fares", partial(_fares, group={"momentum": 0.9}), (0.2, 0.4), steps=400,
       about="the mean is far from where it starts"),
    _P("embedding-histories", _histories, ADAM, steps=500),
)  # fmt: skip

FAULTY = (
    _P("embedding-playlist-root-of-width", partial(_songs, model=partial(models.Playlist, power=0.5)), ADAM,
       S.POOR_INITIALISATION, "embedding-playlist", steps=400,
       about="vectors are drawn with the root of the width, by which they were to be divided"),
    _P("embedding-stores-alike", partial(_stores, fill=alike), ADAM, S.POOR_INITIALISATION, "embedding-stores",
       steps=500, about="all weights start at 0.1: the units of a layer stay alike"),
    _P("embedding-friends-by-adam", partial(_friends, optimizer="adam"), (0.4, 0.6), S.UPDATE_TOO_LARGE,
       "embedding-friends", steps=500, about="Adam, at the rate that was momentum's"),
    _P("embedding-opinions-betas", partial(_opinions, group={"betas": (0.9, 0.001)}), ADAM, S.UPDATE_TOO_LARGE,
       "embedding-opinions", steps=600, about="a second beta of 0.001, as 1 - beta: steps grow where gradients shrink"),
    _P("embedding-bits-signs", partial(_tastes, model=partial(models.Codes, passes=False)), ADAM, S.NO_GRADIENT,
       "embedding-bits", steps=500, about="signs alone, which hand no gradient on to tables and layers"),
    _P("embedding-tree-at-one", partial(_tree, model=partial(models.Tree, least=0.0)), ADAM, S.NON_FINITE,
       "embedding-tree", steps=500, about="the slope of arccosh() at 1, between a node and itself"),
    _P("embedding-prototypes-no-margin", partial(_papers, model=partial(models.Prototypes, margin=0.0)), ADAM,
       S.DEAD_UNITS, "embedding-prototypes", steps=500, about="a ReLU of minus the distance: it is never above zero"),
    _P("embedding-visits-in-milliseconds", partial(_visits, split=partial(data.visits, unit=3e4)), (2e-3, 4e-3),
       S.SATURATED_UNITS, "embedding-visits", steps=500, about="milliseconds, as they are, into tanh units"),
    _P("embedding-crossing-straight", partial(_deals, model=partial(models.Crossing, around=False)), ADAM,
       S.VANISHING_DEPTH, "embedding-crossing", steps=500, about="eight layers of sigmoids, no path around them"),
    _P("embedding-fares-momentum", partial(_fares, group={"momentum": 0.999}), (0.2, 0.4), S.OSCILLATING_LOSS,
       "embedding-fares", steps=400, about="a momentum of 0.999: the mean swings about its goal and back"),
    _P("embedding-histories-slow", _histories, (1e-4, 2e-4), S.SLOW_CONVERGENCE, "embedding-histories", steps=500,
       about="a 50th of the rate"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
