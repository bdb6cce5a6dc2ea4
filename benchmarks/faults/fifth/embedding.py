"""Fifth programs upon tables: recipes, products, stays, guests, menus, orders, pairs of words, bookings and ads."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.fifth import embedding_data as data
from benchmarks.faults.fifth import embedding_models as models
from benchmarks.faults.fourth.embedding import learn
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Program
from gradguard.detect import Symptom


def paired(output: Tensor, y: Tensor) -> Tensor:
    """Let queries find their products, and products their queries."""
    own = torch.arange(len(output))
    return (F.cross_entropy(output, own) + F.cross_entropy(output.T, own)) / 2


def of_eight(model: models.Pair, x: Tensor) -> Tensor:
    """Compare each query with the products of eight."""
    query, product = (part.unflatten(0, (-1, data.TOGETHER)) for part in model.directions(x))
    out: Tensor = (query @ product.mT).flatten(0, 1)
    return out


def weighed(output: Tensor, y: Tensor) -> Tensor:
    """Let pairs that are met more often count more, those that are never met nothing."""
    return ((y.exp() / 20).clamp(max=1).pow(0.75) * (output - y).square()).mean()


@torch.no_grad()
def uniform(model: nn.Module) -> None:
    """Draw all that is called a weight between 0 and 1, as uniform_() does unless it is told something else."""
    for name, p in model.named_parameters():
        if name.endswith("weight"):
            p.uniform_()


ADAM, SGD = (4e-3, 8e-3), (0.1, 0.2)
S = Symptom
P = partial(Program, steps=450)
_recipes = partial(learn, split=data.recipes, optimizer="momentum", batch=128, loss=F.smooth_l1_loss)
_products = partial(learn, split=data.products, optimizer="adamw", batch=64, loss=paired, predict=of_eight)
_stays = partial(learn, split=data.stays, batch=128, schedule=lambda step: min(1.0, step / 30))
_guests = partial(learn, model=models.Neural, split=data.guests, batch=128)
_menu = partial(learn, split=data.menu, batch=128)
_orders = partial(learn, batch=128, schedule=cosine(450))
_near = partial(learn, model=models.Glove, batch=128, loss=weighed)
_bookings = partial(learn, model=models.WideDeep, split=data.bookings, batch=96, optimizer="momentum")
_ads = partial(learn, model=models.Crosses, split=data.ads, batch=128, optimizer="adagrad")

HEALTHY = (
    P("embedding-recipes", partial(_recipes, model=models.Recipe), SGD, about="rows that are in few examples"),
    P("embedding-products", partial(_products, model=partial(models.Pair, math.log(1 / 0.07))), (2e-3, 4e-3)),
    P("embedding-stays", partial(_stays, model=models.Stays), (1e-3, 2e-3), steps=350,
      about="ten blocks, and what they add up to is not normalised at the end"),
    P("embedding-guests", _guests, (2e-3, 4e-3)),
    P("embedding-menu", partial(_menu, model=models.Menu), ADAM),
    P("embedding-orders", partial(_orders, model=models.Orders, split=data.orders), ADAM, about="tanh units"),
    P("embedding-neighbours", partial(_near, split=data.together), (2e-2, 4e-2)),
    P("embedding-bookings", _bookings, SGD),
    P("embedding-ads", _ads, SGD, about="Adagrad: steps ever smaller"),
)  # fmt: skip

FAULTY = (
    P("embedding-recipes-unpadded", partial(_recipes, model=partial(models.Recipe, padded=False)), SGD,
      S.OSCILLATING_LOSS, "embedding-recipes",
      about="without padding_idx empty places have a row, twenty times in each example: along it steps overshoot"),
    P("embedding-products-no-logarithm", partial(_products, model=partial(models.Pair, 1 / 0.07)), (2e-3, 4e-3),
      S.POOR_INITIALISATION, "embedding-products",
      about="1 / 0.07 as it is where its logarithm is kept: logits of a million from the start"),
    P("embedding-stays-all-before", partial(_stays, model=partial(models.Stays, every=True)), (1e-3, 2e-3),
      S.EXPLODING_DEPTH, "embedding-stays", steps=350,
      about="sums of all blocks before, though each holds those before it: it doubles with each"),
    P("embedding-guests-uniform", partial(_guests, fill=uniform), (2e-3, 4e-3), S.POOR_INITIALISATION,
      "embedding-guests", about="uniform_() without bounds: tables and layers between 0 and 1"),
    P("embedding-menu-copied", partial(_menu, model=partial(models.Menu, copied=True)), ADAM, S.NO_GRADIENT,
      "embedding-menu", about="tables are put together when the model is built, and the copy is looked up"),
    P("embedding-orders-numbers", partial(_orders, model=partial(models.Orders, 2),
      split=partial(data.orders, numbered=True)), ADAM, S.SATURATED_UNITS, "embedding-orders",
      about="the customer's number, from 10,000 on, is taken for a feature, before a tanh"),
    P("embedding-neighbours-never", partial(_near, split=partial(data.together, never=True)), (2e-2, 4e-2),
      S.NON_FINITE, "embedding-neighbours", about="the logarithm of 0, times a weight of 0"),
    P("embedding-bookings-kept", partial(_bookings, forgets=True), SGD, S.UPDATE_TOO_LARGE, "embedding-bookings",
      about="zero_grad() was lost: gradients add up over all steps"),
    P("embedding-ads-decay", partial(_ads, group={"lr_decay": 1.0}), SGD, S.SLOW_CONVERGENCE, "embedding-ads",
      about="lr_decay is taken for the factor of an epoch; it divides the rate by the step"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
