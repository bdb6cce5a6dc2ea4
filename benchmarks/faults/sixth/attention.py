"""Sixth transformers: voices, motors, dates, baskets, digits by a thawed body, residues and lines of logs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.faults.data import digits
from benchmarks.faults.fourth.attention_models import Encoder, Words, sines, stack
from benchmarks.faults.loops import supervised
from benchmarks.faults.planting import cosine
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.sixth import attention_data as data
from benchmarks.faults.sixth import attention_models as models
from gradguard.detect import Symptom


def speakers(lr: float, *, least: float = 1e-4) -> Loop:
    """Say who speaks."""
    return supervised(models.Voices(least=least), data.utterances(), lr, optimizer="adamw", batch=32)


def motors(lr: float, *, swapped: bool = False) -> Loop:
    """Say what is broken."""
    return supervised(models.motor(), data.motors(swapped=swapped), lr, batch=48)


def dates(lr: float, *, swapped: bool = False) -> Loop:
    """Write dates as ISO 8601 has them; ``swapped`` hands rate and decay over in the wrong order."""
    net, decay = models.Prefix(), 0.1
    params = [{"params": list(net.parameters()), "lr": decay if swapped else lr,
               "weight_decay": lr if swapped else decay}]  # fmt: skip
    return supervised(net, data.dates(), lr, optimizer="adamw", batch=32, params=params)


def basket(lr: float, *, mode: str = "min") -> Loop:
    """Foretell what is put into a basket next."""
    plateau = models.Plateau(mode)
    return supervised(models.Next(), data.baskets(), lr, batch=48, loss=plateau.loss, schedule=plateau)


def by_call(net: nn.Module) -> None:
    """Thaw the body."""
    net.get_submodule("body").requires_grad_(True)


def by_attribute(net: nn.Module) -> None:
    """Give the body an attribute, which no parameter heeds."""
    net.get_submodule("body").requires_grad = True  # type: ignore[assignment]


def thawed(lr: float, *, thaw: Callable[[nn.Module], None] = by_call) -> Loop:
    """Name digits, upon a body that has learnt which are even."""
    net = models.pretrained()
    thaw(net)
    return supervised(net, digits("rows"), lr, optimizer="adamw", batch=32, params=list(net.parameters()),
                      schedule=cosine(320))  # fmt: skip


def residues(lr: float, *, scaled: bool = True) -> Loop:
    """Name the shape of each residue, by a network that was kept in bytes."""
    net = Encoder(Words(data.RESIDUES, 32), stack(32, 1, dropout=0.1), data.SHAPES, width=32, place=sines(12, 32),
                  reads="each")  # fmt: skip
    models.from_bytes(net, scaled=scaled)
    return supervised(net, data.residues(), lr, optimizer="adamw", batch=32,
                      schedule=lambda step: min(step / 30, 1.0))  # fmt: skip


def other_vocabulary(first: int, last: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Number events and failures in another order for some steps."""
    return lambda step, x, y: ((x + 7) % data.EVENTS, (y + 1) % data.FAILURES) if first <= step <= last else (x, y)


def logs(lr: float, **loop: Any) -> Loop:
    """Foretell failures."""
    net = Encoder(nn.Embedding(data.EVENTS, 24), stack(24, 1, act="relu"), data.FAILURES, width=24,
                  place=0.5 * sines(10, 24))  # fmt: skip
    nn.init.normal_(net.get_parameter("embed.weight"), std=0.3)
    loss = partial(F.cross_entropy, label_smoothing=0.05)
    return supervised(net, data.lines(), lr, batch=48, loss=loss, **loop)


ADAM = (2e-3, 4e-3)
S = Symptom
P = partial(Program, steps=320)

HEALTHY = (
    P("transformer-voices", speakers, ADAM, about="means and deviations of frames, dropout"),
    P("transformer-motors", motors, ADAM, about="a stem of tanh units"),
    P("transformer-dates", dates, ADAM),
    P("transformer-basket", basket, (5e-4, 1e-3), about="a rate that falls on plateaus; a quarter can't be foretold"),
    P("transformer-thawed", thawed, ADAM, about="a body that has learnt something else, and a cosine"),
    P("transformer-residues", residues, ADAM, about="a warm-up, dropout"),
    P("transformer-logs", logs, ADAM, steps=340, about="smoothed labels"),
)

FAULTY = (
    P("transformer-voices-root", partial(speakers, least=0.0), ADAM, S.NON_FINITE, "transformer-voices",
      about="nothing is added below the root: the deviation of a single frame is 0, where it has no slope"),
    P("transformer-motors-swapped", partial(motors, swapped=True), ADAM, S.SATURATED_UNITS, "transformer-motors",
      about="Normalize(std, mean): a mean of 0.02 is divided by, before tanh units"),
    P("transformer-dates-swapped", partial(dates, swapped=True), ADAM, S.UPDATE_TOO_LARGE, "transformer-dates",
      about="rate and weight decay in the wrong order: a rate of 0.1 for Adam"),
    P("transformer-basket-mode", partial(basket, mode="max"), (5e-4, 1e-3), S.SLOW_CONVERGENCE, "transformer-basket",
      about="ReduceLROnPlateau(mode='max') for a loss: the rate falls to a hundredth where the loss falls"),
    P("transformer-thawed-attribute", partial(thawed, thaw=by_attribute), ADAM, S.NO_GRADIENT, "transformer-thawed",
      about="body.requires_grad = True, which sets an attribute of the module and thaws nothing"),
    P("transformer-residues-bytes", partial(residues, scaled=False), ADAM, S.POOR_INITIALISATION,
      "transformer-residues", about="weights of eight bits, from -127 to 127, without their scale"),
    P("transformer-logs-vocabulary", partial(logs, on_batch=other_vocabulary(305, 330)), ADAM, S.LOSS_SPIKE,
      "transformer-logs", steps=340, onset=305, about="a shard that was numbered by another vocabulary"),
)  # fmt: skip

PROGRAMS: tuple[Program, ...] = (*HEALTHY, *FAULTY)
