"""Transformers on pieces of waves and of digits, documents, marked rows, point sets and English text."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import changed
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.second import attention_data as data
from benchmarks.faults.second import attention_models as models
from gradguard.detect import Symptom


def digits(
    lr: float, *, init: Callable[[nn.Module], Any] | None = None, loop: dict[str, Any] | None = None, **model: Any
) -> Loop:
    """Name digits, given in pieces."""
    net = models.Encoder(nn.Linear(4, 24), 10, **model)
    if init:
        init(net)
    return supervised(net, data.pieces(), lr, **{"batch": 24, "optimizer": "adamw", **(loop or {})})


def branches(net: nn.Module, *, first: bool) -> None:
    """Set the last matrix of each branch to 0; or the first one, too."""
    for layer in (part for part in net.modules() if isinstance(part, models.Layer)):
        nn.init.zeros_(layer.attention.out_proj.weight)
        nn.init.zeros_(layer.narrow.weight)
        if first:
            nn.init.zeros_(layer.attention.in_proj_weight)
            nn.init.zeros_(layer.widen.weight)
            nn.init.zeros_(layer.widen.bias)


def alike(net: nn.Module) -> None:
    """Give each matrix one number, as if all its entries had been averaged."""
    with torch.no_grad():
        for p in (p for name, p in net.named_parameters() if p.ndim == 2 and name != "place"):
            p.copy_(p.abs().mean().expand_as(p))


def penalised(lr: float, penalty: float) -> Loop:
    """Name waves, with a price on what the hidden units of the stem give."""
    stem = models.Stem(4, 24)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y) + penalty * stem.kept.sum(-1).mean()

    return supervised(models.Encoder(stem, 5), data.waves(), lr, batch=32, loss=loss)


def documents(lr: float) -> Loop:
    """Name the topic of documents."""
    net = models.Pooler(data.WORDS, data.TOPICS)
    return supervised(net, data.documents(), lr, batch=32)


def stamped(lr: float, first: float, step: float) -> Loop:
    """Name waves by pieces that say when they were measured."""
    net = models.Encoder(nn.Sequential(nn.Linear(5, 24), nn.Tanh()), 5)
    return supervised(net, data.stamped(first, step), lr, batch=32)


def writing(lr: float, *, tied: bool = False, width_rate: Callable[[float], float] | None = None, **loop: Any) -> Loop:
    """Foretell the next character of English text; ``width_rate`` gives the rate of matrices, given the width."""
    split, letters = data.text()
    net = models.Writer(letters, tied=tied)
    if width_rate:
        hidden = [p for p in net.layers.parameters() if p.ndim == 2]
        others = [p for p in net.parameters() if all(p is not q for q in hidden)]
        loop["params"] = [{"params": hidden, "lr": lr * width_rate(32.0)}, {"params": others}]
    return supervised(net, split, lr, **{"batch": 16, **loop})


def glancing(lr: float, *, hard: bool = False) -> Loop:
    """Name the marked symbol of a row."""
    return supervised(models.Glance(data.SYMBOLS + 1, data.SYMBOLS, hard=hard), data.marked(), lr, batch=40)


def measuring(lr: float, **loop: Any) -> Loop:
    """Measure sets of points."""
    return supervised(models.Inducing(2, 2), data.points(), lr, **{"batch": 64, **loop})


def compared(lr: float, loss: Callable[[Tensor, Tensor], Tensor], scale: float = 300.0) -> Loop:
    """Name digits by comparing directions."""
    net = models.Encoder(nn.Linear(4, 24), 10, heads=2)
    net.head = models.Cosine(24, 10, scale)
    return supervised(net, data.pieces(), lr, batch=48, loss=loss)


def by_hand(output: Tensor, y: Tensor) -> Tensor:
    """Take the logarithm of the softmax, where its smallest shares are 0."""
    return -(F.one_hot(y, output.shape[1]) * output.softmax(1).log()).sum(1).mean()


def mixed(lr: float) -> Loop:
    """Name waves with a mixture of experts."""
    net = models.Encoder(nn.Linear(4, 24), 5)
    net.layers.insert(1, models.Experts(24))
    return supervised(net, data.waves(), lr, batch=32)


def adapted(lr: float) -> Loop:
    """Learn digits, freeze all, and learn their negatives turned around with thin layers and the head alone."""
    net, split = models.Encoder(nn.Linear(4, 24), 10), data.pieces()
    before = supervised(net, split, 4e-3, batch=24)
    for number in range(1, 201):
        before.step(number, lambda loss, name: None)
    net.requires_grad_(False)
    for layer in net.layers:
        layer.widen, layer.narrow = models.LowRank(layer.widen), models.LowRank(layer.narrow)
    net.embed, net.head = models.LowRank(net.embed), nn.Linear(24, 10)
    return supervised(net, changed(split, lambda x: -x.flip(1)), lr, batch=24)


def triangles(number: int, high: float = 1.0, low: float = 0.1) -> float:
    """Let the rate go up and down every 40 steps."""
    return low + (high - low) * (1 - abs(number % 40 - 20) / 20)


def restarts(number: int, wrong: float = 1.0) -> float:
    """Let the rate fall to zero four times; the last time it may begin too high."""
    return (wrong if number > 300 else 1.0) * (0.5 + 0.5 * math.cos(math.pi * ((number - 1) % 100) / 100))


ADAM = (2e-3, 4e-3)
S = Symptom
P = partial(Program, steps=400)
BRIEF, LONG = 250, 500

scaled = partial(digits, layers=6, norm=False, last=False, sums=lambda x, y: x + 0.2 * y)
deep = partial(digits, layers=6, last=False, loop={"batch": 16})
warm = partial(writing, schedule=lambda step: min(1.0, step / 100))
widths = partial(writing, width_rate=lambda width: 32.0 / width, optimizer="adamw")
never = partial(writing, schedule=lambda step: min(1.0, step / 1e9))
again = partial(digits, loop={"schedule": restarts})
leap = partial(digits, loop={"schedule": partial(restarts, wrong=100.0)})
cyclic = partial(digits, loop={"schedule": triangles})
overshooting = partial(digits, loop={"schedule": partial(triangles, high=40.0)})
careful = partial(digits, layers=2, last=False, init=partial(branches, first=False))

HEALTHY = (
    P("transformer-pieces-of-digits", digits, ADAM, about="the usual one"),
    P("transformer-zero-branches", careful, ADAM,
            about="branches begin as nothing: most matrices have no gradient at the first step"),
    P("transformer-sparse-stem", partial(penalised, penalty=0.001), (5e-3, 8e-3),
            about="a price on every hidden unit that is on, by how much it is"),
    P("transformer-documents", documents, ADAM, about="a tanh near its ends, and dropout"),
    P("transformer-time-of-day", partial(stamped, first=-1.0, step=0.18), ADAM, about="tanh units"),
    P("transformer-scaled-sums", scaled, (1e-3, 2e-3), steps=BRIEF, about="no norms, a fifth of each branch counts"),
    P("transformer-no-last-norm", deep, (1e-3, 2e-3), steps=BRIEF, about="six layers, the stream of which grows"),
    P("transformer-writing", warm, ADAM, about="warm-up; the loss rests high, as text can't be foretold"),
    P("transformer-writing-tied", partial(writing, tied=True, loss=nn.CrossEntropyLoss(label_smoothing=0.2)),
            (4e-3, 6e-3), about="tied and smoothed: the loss rests very high"),
    P("transformer-writing-by-width", widths, ADAM, about="rates that differ by the kind of parameter"),
    P("transformer-glance", glancing, ADAM, about="a plateau until it sees what the mark means"),
    P("transformer-cyclic", cyclic, ADAM, steps=420, about="the rate goes up and down tenfold, every 40 steps"),
    P("transformer-sets", measuring, ADAM, steps=LONG, about="few points of its own, and no norm"),
    P("transformer-restarts", again, (3e-3, 5e-3), about="updates fall to zero and jump up three times"),
    P("transformer-directions", partial(compared, loss=F.cross_entropy), ADAM,
            about="logits up to 300: a large loss at the start and large gradients"),
    P("transformer-experts", mixed, ADAM, about="now and then an expert gets no token, so no gradient"),
    P("transformer-adapted", adapted, (1e-2, 2e-2), about="nearly all is frozen; thin layers begin at 0"),
)  # fmt: skip

FAULTY = (
    P("transformer-zero-everything", partial(careful, init=partial(branches, first=True)), ADAM,
            S.POOR_INITIALISATION, "transformer-zero-branches", about="both layers of each branch begin at 0"),
    P("transformer-averaged", partial(digits, init=alike), ADAM, S.POOR_INITIALISATION,
            "transformer-pieces-of-digits", about="each matrix is one number, so all units are alike"),
    P("transformer-overpriced-stem", partial(penalised, penalty=30.0), (5e-3, 8e-3), S.DEAD_UNITS,
            "transformer-sparse-stem", about="the price of an active unit is 30,000 times as high: all go off"),
    P("transformer-unix-time", partial(stamped, first=1.7e9, step=60.0), ADAM, S.SATURATED_UNITS,
            "transformer-time-of-day", about="seconds since 1970 are a feature of the tokens, before a tanh"),
    P("transformer-brackets", partial(scaled, sums=lambda x, y: 0.2 * (x + y)), (1e-3, 2e-3), S.VANISHING_DEPTH,
            "transformer-scaled-sums", steps=BRIEF, about="0.2 * (x + y), where x + 0.2 * y was meant"),
    P("transformer-added-twice", partial(deep, sums=lambda x, y: x + (x + y)), (1e-3, 2e-3), S.EXPLODING_DEPTH,
            "transformer-no-last-norm", steps=BRIEF, about="branches add what they get, and so do the layers"),
    P("transformer-times-width", partial(widths, width_rate=lambda width: 32.0 * width), ADAM, S.UPDATE_TOO_LARGE,
            "transformer-writing-by-width", about="the rate of matrices is multiplied by the width, not divided by it"),
    P("transformer-endless-warm-up", never, ADAM, S.UPDATE_TOO_SMALL, "transformer-writing",
            about="a warm-up of 10^9 tokens, counted in steps"),
    P("transformer-cyclic-too-high", overshooting, ADAM, S.OSCILLATING_LOSS, "transformer-cyclic", steps=420,
            about="the upper rate of the cycle is 40 times too high: it overshoots in each of them"),
    P("transformer-sets-changed-optimizer", partial(measuring, optimizer="sgd"), ADAM, S.SLOW_CONVERGENCE,
            "transformer-sets", steps=LONG, about="SGD, at the rate that was Adam's"),
    P("transformer-hard-glance", partial(glancing, hard=True), ADAM, S.NO_GRADIENT, "transformer-glance",
            about="argmax in place of the softmax: query and keys never get a gradient"),
    P("transformer-log-of-softmax", partial(compared, loss=by_hand), ADAM, S.NON_FINITE, "transformer-directions",
            about="the logarithm of a share that underflows"),
    P("transformer-wrong-restart", leap, (3e-3, 5e-3), S.LOSS_SPIKE, "transformer-restarts", onset=301,
            about="the last restart begins at a rate 100 times too high"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
