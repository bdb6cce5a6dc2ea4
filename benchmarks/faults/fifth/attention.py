"""Fifth transformers: a sorter, tables, bags, graphs, masked words, a grammar, loads, gestures and strips of digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import Split, digits, wine
from benchmarks.faults.fifth import attention_data as data
from benchmarks.faults.fifth import attention_models as models
from benchmarks.faults.fourth.attention_models import Encoder, sines, stack
from benchmarks.faults.loops import score_of, supervised
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom


def order(lr: float, *, saves: bool = False) -> Loop:
    """Sort rows."""
    net = models.Sorter(saves=saves)
    net.apply(models.usual)
    params = [{"params": list(net.parameters()), "weight_decay": 0.1, "betas": (0.9, 0.95)}]
    return supervised(net, data.rows(), lr, optimizer="adamw", batch=48, params=params)


def vintage(lr: float) -> Loop:
    """Name wines."""
    return supervised(models.Tabular(13, 3), wine(), lr, optimizer="adamw", batch=32)


def search(lr: float, *, most: float = 1.0) -> Loop:
    """Say whether there is a 3 in a bag of digits."""
    return supervised(models.Bags(), data.bags(most), lr, batch=64)


def spread(lr: float, *, loops: bool = True) -> Loop:
    """Name the strongest signal around each node."""
    return supervised(models.Graph(loops=loops), data.graphs(), lr, batch=32)


def fill(lr: float, *, biases: Callable[[Tensor], Tensor]) -> Loop:
    """Fill in hidden words; the head's biases are had from how often each word is met in training."""
    x = data.sentences()
    known, middle = x[:1800], x.clone()
    middle[:, 4] = data.MASK
    net = models.Masked(biases(torch.bincount(known.flatten(), minlength=data.WORDS) + 1.0))

    def hide(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return x.masked_fill(torch.rand(x.shape) < 0.15, data.MASK), y

    def loss(output: Tensor, y: Tensor) -> Tensor:
        return (F.cross_entropy(output, y, reduction="none") * net.hidden).sum() / net.hidden.sum().clamp(min=1)

    def filled(of: slice) -> float:
        found: float = score_of(lambda: net(middle[of])[..., 4], [net], x[of, 4])
        return found

    loop = supervised(net, Split(known, known, x[1800:], x[1800:]), lr, batch=48, loss=loss, on_batch=hide)
    return replace(loop, score=lambda: filled(slice(1800, None)), train_score=lambda: filled(slice(512)))


def noam(step: int, warmup: int = 40) -> float:
    """Let the rate rise on a line to 1, and fall by the root of the step."""
    return min(step / warmup, math.sqrt(warmup / step))


def noam_as_published(step: int, width: int = 512, warmup: int = 40) -> float:
    """Give the rate that is in the paper, for its width, which is meant to be a rate rather than a factor."""
    return width**-0.5 * min(step**-0.5, step * warmup**-1.5)


def speak(lr: float, *, schedule: Callable[[int], float] = noam, by_attribute: bool = False) -> Loop:
    """Foretell the next letter."""
    net = models.Llama()
    net.apply(partial(models.usual, by_attribute=by_attribute))
    return supervised(net, data.grammar(), lr, optimizer="adamw", batch=24, schedule=schedule)


def supply(lr: float, **loop: Any) -> Loop:
    """Foretell the load of three hours."""
    net = Encoder(nn.Linear(6, 24), stack(24, 1, dropout=0.05), 3, width=24, place=0.5 * sines(8, 24), reads="all")
    return supervised(net, data.loads(), lr, batch=32, schedule=lambda step: min(step / 20, 1.0), **loop)


def big_endian(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Read some batches in the wrong order of bytes: what is small becomes 256 times as large."""
    return lambda step, x, y: (256 * x, 256 * y) if first <= step <= last else (x, y)


def wave(lr: float, **loop: Any) -> Loop:
    """Name gestures."""
    net = Encoder(models.Stem(3, 24), stack(24, 1), data.GESTURES, width=24, place=0.5 * sines(8, 24))
    return supervised(net, data.gestures(), lr, optimizer="momentum", batch=48, **loop)


def unscaled(step: int, model: nn.Module) -> None:
    """Divide gradients by the scale of mixed precision, by which the loss was never multiplied."""
    for p in model.parameters():
        if p.grad is not None:
            p.grad /= 65_536.0


def strips(lr: float, *, schedule: Callable[[int], float]) -> Loop:
    """Name digits by their rows."""
    net = Encoder(nn.Linear(8, 24), stack(24, 1, dropout=0.1), 10, width=24, place=0.5 * sines(8, 24))
    return supervised(net, digits("rows"), lr, optimizer="adamw", batch=32, schedule=schedule,
                      loss=partial(F.cross_entropy, label_smoothing=0.1))  # fmt: skip


ADAM, MOMENTUM = (2e-3, 4e-3), (0.03, 0.06)
S = Symptom
P = partial(Program, steps=350)
words = partial(fill, biases=lambda counts: (counts / counts.sum()).log())

HEALTHY = (
    P("transformer-sorter", order, ADAM, about="weights and decay as in GPT-2"),
    P("transformer-wine", vintage, ADAM, steps=300),
    P("transformer-bags", search, ADAM, about="tanh and sigmoid units that point at instances"),
    P("transformer-graph", spread, ADAM),
    P("transformer-masked-words", words, ADAM, about="a loss of few tokens, so rough; biases begin at the frequencies"),
    P("transformer-grammar", speak, ADAM, about="a rate that rises and falls; a tenth can't be foretold"),
    P("transformer-loads", supply, ADAM, about="a warm-up, dropout"),
    P("transformer-gestures", wave, MOMENTUM),
    P("transformer-strips", partial(strips, schedule=lambda step: min(step / 40, 1.0)), ADAM,
      about="a warm-up, smoothed labels, dropout"),
)  # fmt: skip

FAULTY = (
    P("transformer-grammar-all-norms", partial(speak, by_attribute=True), ADAM, S.POOR_INITIALISATION,
      "transformer-grammar", about="what has a weight is taken for a norm: tables and layers start as ones"),
    P("transformer-sorter-checkpoint", partial(order, saves=True), ADAM, S.NO_GRADIENT, "transformer-sorter",
      about="reentrant checkpointing of what gets no input with a gradient: the head alone has one"),
    P("transformer-bags-scans", partial(search, most=65_535.0), ADAM, S.SATURATED_UNITS, "transformer-bags",
      about="pixels of 16 bits, from 0 to 65,535 and not divided by anything, before a tanh"),
    P("transformer-graph-no-loops", partial(spread, loops=False), ADAM, S.NON_FINITE, "transformer-graph",
      about="no loops are added, and nodes without links have a softmax of nothing but -inf"),
    P("transformer-masked-words-counts", partial(fill, biases=lambda counts: counts), ADAM, S.POOR_INITIALISATION,
      "transformer-masked-words", about="the head's biases are counts, rather than logarithms of frequencies"),
    P("transformer-grammar-as-published", partial(speak, schedule=noam_as_published), ADAM, S.SLOW_CONVERGENCE,
      "transformer-grammar", about="the paper's rate as a factor of a rate: less than a hundredth of it"),
    P("transformer-loads-big-endian", partial(supply, on_batch=big_endian(310, 325)), ADAM, S.LOSS_SPIKE,
      "transformer-loads", onset=310, about="a shard is read in the wrong order of bytes"),
    P("transformer-gestures-unscaled", partial(wave, on_gradients=unscaled), MOMENTUM, S.UPDATE_TOO_SMALL,
      "transformer-gestures", about="gradients are divided by a scale of the loss that was never applied"),
    P("transformer-strips-steps", partial(strips, schedule=lambda step: float(min(step, 40))), ADAM,
      S.UPDATE_TOO_LARGE, "transformer-strips", about="a factor of step, which was to be divided by the warm-up"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
