"""Third transformers: on tables, motifs, points, records and digits, and what users get wrong about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.third import attention_parts as parts
from gradguard.detect import Symptom


def pieces(lr: float, *, init: Callable[[nn.Module], Any] | None = None) -> Loop:
    """Name digits by a token of its own among pieces."""
    layers = [parts.Layer(24, 3, dropout=0.1) for _ in range(2)]
    head = nn.Sequential(nn.LayerNorm(24), nn.Linear(24, 10))
    net = parts.Encoder(nn.Linear(4, 24), [*layers], head, width=24, reading="own")
    if init:
        init(net)
    smoothed = partial(F.cross_entropy, label_smoothing=0.1)
    return supervised(net, parts.pieces(), lr, optimizer="adamw", batch=16, loss=smoothed, schedule=cosine(300, 40))


@torch.no_grad()
def broadcast(net: nn.Module) -> None:
    """Draw one row for each linear layer, and give it to all units."""
    for layer in (part for part in net.modules() if isinstance(part, nn.Linear)):
        layer.weight.copy_(layer.weight[:1].expand_as(layer.weight))
        nn.init.zeros_(layer.bias)


def inked(lr: float, **bounds: float) -> Loop:
    """Name digits by parts, the weights of which are kept within bounds."""
    stem = parts.Stem(8, 20)
    head = nn.Sequential(nn.LayerNorm(20), nn.Linear(20, 10))
    net = parts.Encoder(stem, [parts.Layer(20)], head, width=20)

    def clamp(module: nn.Module, inputs: Any) -> None:
        with torch.no_grad():
            stem.parts.weight.clamp_(**bounds)

    stem.register_forward_pre_hook(clamp)
    return supervised(net, parts.ink(), lr, batch=24)


def hashed(lr: float, *, each: float, most: float) -> Loop:
    """Name digits by six bits."""
    head = nn.Sequential(nn.LayerNorm(24), parts.Hash(24, 6, 10, each=each, most=most))
    net = parts.Encoder(nn.Linear(8, 24), [parts.Layer(24), parts.Layer(24)], head, width=24)
    return supervised(net, parts.ink(), lr, batch=20)


def carried(lr: float, *, bias: float) -> Loop:
    """Name motifs through six layers with gates."""
    layers = [parts.Carrying(16, bias) for _ in range(6)]
    net = parts.Encoder(nn.Linear(4, 16), [*layers], nn.Linear(16, 6), width=16)
    return supervised(net, parts.motifs(), lr, batch=20)


def weighed(lr: float, *, bias: float) -> Loop:
    """Measure points, with attention by a sigmoid and no norms."""
    layers = [parts.Layer(16, bias=bias, norm=False, act=nn.ReLU) for _ in range(5)]
    net = parts.Encoder(nn.Linear(3, 16), [*layers], nn.Linear(16, 3), width=16)
    return supervised(net, parts.springs(), lr, batch=24)


def found(lr: float, **loop: Any) -> Loop:
    """Name motifs by plain descent."""
    net = parts.Encoder(nn.Linear(4, 20), [parts.Layer(20)], nn.Linear(20, 6), width=20)
    return supervised(net, parts.motifs(), lr, **{"optimizer": "sgd", "batch": 24, **loop})


def signs(step: int, model: nn.Module) -> None:
    """Leave nothing but the sign of each gradient."""
    for param in model.parameters():
        if param.grad is not None:
            param.grad.sign_()


def sketched(lr: float, *, momentum: float = 0.9) -> Loop:
    """Name digits by momentum, in large batches."""
    head = nn.Sequential(nn.LayerNorm(20), nn.Linear(20, 10))
    net = parts.Encoder(nn.Linear(8, 20), [parts.Layer(20, act=nn.ELU)], head, width=20)
    loop = supervised(net, parts.ink(), lr, optimizer="momentum", batch=96)
    loop.optimizers["optimizer"].param_groups[0]["momentum"] = momentum
    return loop


def looked_up(lr: float, *, schedule: Callable[[int], float]) -> Loop:
    """Look a value up by its key."""
    layers = [parts.Layer(24, 3) for _ in range(2)]
    net = parts.Encoder(nn.Linear(11, 24), [*layers], nn.Linear(24, parts.VALUES), width=24, reading="last")
    return supervised(net, parts.records(), lr, batch=32, schedule=schedule)


def floored(step: int, last: int = 400, least: float = 1 / 300) -> float:
    """Let the rate fall to a floor along half a cosine, and leave it there."""
    return least + (1 - least) * (0.5 + 0.5 * math.cos(math.pi * min(step / last, 1.0)))


def coded(lr: float, *, passes: bool) -> Loop:
    """Name motifs in noise by the nearest of a few codes for each token."""
    embed = parts.Codes(6, 16, 24, passes=passes)
    net = parts.Encoder(embed, [parts.Layer(16)], nn.Linear(16, 6), width=16)

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(output, y) + embed.cost

    return supervised(net, parts.motifs(nuisance=3.0), lr, batch=24, loss=loss)


ADAM, LOW = (3e-3, 6e-3), (1e-3, 2e-3)
FEW = -math.log(16)
S = Symptom
P = partial(Program, steps=400)
BRIEF = 250

HEALTHY = (
    P("transformer-own-token", pieces, ADAM, steps=300,
            about="one token alone is read; smoothed labels, dropout, a warm-up"),
    P("transformer-parts-of-ink", partial(inked, min=0.0), ADAM,
            about="weights that may not be negative: many rest at 0; inputs neither, so no unit is ever off for long"),
    P("transformer-hash-codes", partial(hashed, each=0.005, most=2.5), ADAM,
            about="a tanh that becomes steeper on purpose, so that bits come to their ends"),
    P("transformer-carrying", partial(carried, bias=-3.0), ADAM, steps=BRIEF,
            about="twelve branches in a row without a norm; gates let little of each in"),
    P("transformer-sigmoid-attention", partial(weighed, bias=FEW), LOW, steps=BRIEF,
            about="five layers, no norms: a stream that grows"),
    P("transformer-motifs-sgd", found, (0.1, 0.2), about="plain descent at a rate that looks large"),
    P("transformer-ink-momentum", sketched, (0.05, 0.1), steps=BRIEF,
            about="large batches: a smooth loss, at rates that look large"),
    P("transformer-records", partial(looked_up, schedule=floored), ADAM, steps=400,
            about="a long plateau; the rate falls to a floor"),
    P("transformer-codes", partial(coded, passes=True), (6e-3, 1e-2),
            about="codes that are not the nearest to any token get no gradient; the loss has another part"),
)  # fmt: skip

FAULTY = (
    P("transformer-broadcast-rows", partial(pieces, init=broadcast), ADAM, S.POOR_INITIALISATION,
            "transformer-own-token", steps=300,
            about="one row is drawn and expanded to all units of a layer: they are alike"),
    P("transformer-clamped-parts", partial(inked, max=0.0), ADAM, S.DEAD_UNITS, "transformer-parts-of-ink",
            about="clamp_(max=0) where min was meant: no part is ever there"),
    P("transformer-steep-codes", partial(hashed, each=5.0, most=1e9), ADAM, S.SATURATED_UNITS,
            "transformer-hash-codes", onset=20, about="the tanh becomes steeper by batches rather than by epochs"),
    P("transformer-carrying-nothing", partial(carried, bias=3.0), ADAM, S.VANISHING_DEPTH, "transformer-carrying",
            steps=BRIEF, about="the wrong sign of the gates' bias: they take the branches alone"),
    P("transformer-sigmoid-unbiased", partial(weighed, bias=0.0), LOW, S.EXPLODING_DEPTH,
            "transformer-sigmoid-attention", steps=BRIEF, about="no bias of -log T: each layer adds up eight tokens"),
    P("transformer-motifs-signs", partial(found, on_gradients=signs), (0.1, 0.2), S.UPDATE_TOO_LARGE,
            "transformer-motifs-sgd", about="signs of gradients, compressed to a bit, at the rate of plain descent"),
    P("transformer-ink-endless-momentum", partial(sketched, momentum=0.998), (0.05, 0.1), S.OSCILLATING_LOSS,
            "transformer-ink-momentum", steps=BRIEF, about="a momentum of 0.998: it goes on far beyond, and back"),
    P("transformer-records-by-batches", partial(looked_up, schedule=partial(floored, last=10)), ADAM,
            S.SLOW_CONVERGENCE, "transformer-records", steps=400, onset=10,
            about="a schedule of ten epochs is stepped with each batch: a 300th of the rate from the tenth on"),
    P("transformer-codes-cut", partial(coded, passes=False), (6e-3, 1e-2), S.NO_GRADIENT, "transformer-codes",
            about="the nearest code without passing the gradient through: what encodes never gets one"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
