"""Programs whose first layer is a table: words, users and items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import SparseAdam

from benchmarks.faults.data import Split
from benchmarks.faults.embedding_data import following, pairs, ratings, texts
from benchmarks.faults.embedding_models import Bag, Cosine, Factors, Padded, Tied, Towers
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Program, Record
from gradguard.detect import Symptom


def train(
    lr: float,
    *,
    model: Callable[[], nn.Module] = Bag,
    split: Callable[[], Split] = texts,
    fill: Callable[[Any], Any] | None = None,
    **loop: Any,
) -> Loop:
    """Build a model, change it, train it."""
    built = model()
    if fill:
        fill(built)
    return supervised(built, split(), lr, **loop)


def by_two(lr: float) -> Loop:
    """Train the table, of sparse gradients, by ``SparseAdam``, and the rest by Adam."""
    model, split = Bag(sparse=True), texts()
    loop = supervised(model, split, lr, params=list(model.body.parameters()))
    rest, table = loop.optimizers["optimizer"], SparseAdam(model.table.parameters(), lr=lr)

    def step(number: int, record: Record) -> None:
        at = torch.randint(len(split.x), (64,))
        value = nn.functional.cross_entropy(model(split.x[at]), split.y[at])
        record(value, None)
        rest.zero_grad()
        table.zero_grad()
        value.backward()
        rest.step()
        table.step()

    return replace(loop, optimizers={"table": table, "body": rest}, step=step)


def frozen(model: Bag) -> None:
    """Freeze the table."""
    model.table.requires_grad_(False)


@torch.no_grad()
def times(model: nn.Module, factor: float) -> None:
    """Multiply all tables."""
    for module in model.modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            module.weight.mul_(factor)


@torch.no_grad()
def constant(model: nn.Module, value: float) -> None:
    """Set all weights to one number."""
    for parameter in model.parameters():
        parameter.fill_(value)


@torch.no_grad()
def shut(model: Bag) -> None:
    """Give the hidden units a bias that no input overcomes."""
    model.body.get_parameter("0.bias").fill_(-10)


def careless(lr: float) -> Loop:
    """Train by an Adam whose eps is tiny."""
    model = Bag()
    return supervised(model, texts(), lr, params=[{"params": list(model.parameters()), "eps": 1e-15}])


_P = partial(Program, steps=500)
_SHORTER = partial(texts, 3)
_FACTORS = partial(train, model=Factors, split=ratings, optimizer="sgd")
_TOWERS = partial(train, model=Towers, split=pairs)
_TIED = partial(train, model=Tied, split=following)
_COSINE = partial(train, model=Cosine, split=_SHORTER)
_DETACHED = partial(Bag, detaches=True)
_LARGE = partial(times, factor=100)
_SPARSE = partial(Bag, sparse=True)

PROGRAMS: tuple[Program, ...] = (
    _P("embedding-bag", train, (0.003, 0.01), about="words by Zipf's law: most rows seldom get a gradient"),
    _P(
        "embedding-bag-sparse",
        partial(train, model=_SPARSE, optimizer="sgd"),
        (0.3, 1.0),
        about="sparse gradients; a learning rate that looks large and is not",
    ),
    _P("embedding-bag-two", by_two, (0.003, 0.01), about="SparseAdam for the table, Adam for the rest"),
    _P("embedding-bag-frozen", partial(train, fill=frozen), (0.003, 0.01), about="the table is frozen on purpose"),
    _P(
        "embedding-bag-eps",
        careless,
        (0.003, 0.01),
        about="an eps of 1e-15: rows of rare words move by lr all the same",
    ),
    _P(
        "embedding-padded",
        partial(train, model=Padded, split=_SHORTER),
        (0.003, 0.01),
        about="the row of the padding is zero and never gets a gradient",
    ),
    _P("embedding-cosine", _COSINE, (0.003, 0.01), about="roots of what is zero at padding, kept safe by an eps"),
    _P("embedding-factors", _FACTORS, (1.0, 3.0), about="a learning rate of 3: each row is in few pairs of a batch"),
    _P("embedding-towers", _TOWERS, (0.005, 0.01), about="negative sampling: some negatives look like positives"),
    _P("embedding-tied", _TIED, (0.003, 0.01), about="table and softmax share weights; the loss rests at the noise"),
    _P(
        "embedding-bag-large-weights",
        partial(train, fill=_LARGE),
        (0.003, 0.01),
        Symptom.POOR_INITIALISATION,
        "embedding-bag",
        about="vectors times 100",
    ),
    _P(
        "embedding-tied-large-weights",
        partial(_TIED, fill=_LARGE),
        (0.003, 0.01),
        Symptom.POOR_INITIALISATION,
        "embedding-tied",
        about="vectors, and so logits, times 100",
    ),
    _P(
        "embedding-factors-constant",
        partial(_FACTORS, fill=partial(constant, value=0.5)),
        (1.0, 3.0),
        Symptom.POOR_INITIALISATION,
        "embedding-factors",
        about="all entries 0.5: they stay equal within a row, and the rank is 1",
    ),
    _P(
        "embedding-towers-fast",
        _TOWERS,
        (0.5, 1.0),
        Symptom.UPDATE_TOO_LARGE,
        "embedding-towers",
        about="learning rate times 100",
    ),
    _P(
        "embedding-tied-slow",
        _TIED,
        (0.003 / 300, 0.01 / 300),
        Symptom.SLOW_CONVERGENCE,
        "embedding-tied",
        about="learning rate by 300",
    ),
    _P(
        "embedding-factors-tiny",
        _FACTORS,
        (1e-9, 3e-9),
        Symptom.UPDATE_TOO_SMALL,
        "embedding-factors",
        about="learning rate times 1e-9",
    ),
    _P(
        "embedding-towers-detached",
        partial(_TOWERS, model=partial(Towers, detaches=True)),
        (0.005, 0.01),
        Symptom.NO_GRADIENT,
        "embedding-towers",
        about="both towers detached from the product",
    ),
    _P(
        "embedding-bag-detached",
        partial(train, model=_DETACHED),
        (0.003, 0.01),
        Symptom.NO_GRADIENT,
        "embedding-bag",
        about="the vectors detached, while the optimizer has the table",
    ),
    _P(
        "embedding-bag-shut",
        partial(train, fill=shut),
        (0.003, 0.01),
        Symptom.DEAD_UNITS,
        "embedding-bag",
        about="hidden biases of -10 before a ReLU",
    ),
    _P(
        "embedding-cosine-no-eps",
        partial(_COSINE, model=partial(Cosine, eps=0.0)),
        (0.003, 0.01),
        Symptom.NON_FINITE,
        "embedding-cosine",
        about="a division by the norm of padding rows, which is 0",
    ),
)
