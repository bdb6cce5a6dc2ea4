"""Two models and two optimizers: generators of waves, moons and boards, actors and critics, an attacker, fairness."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer

from benchmarks.faults.program import Program
from benchmarks.faults.third.adversarial_agents import attacked, by_variance, fair, home, soften
from benchmarks.faults.third.adversarial_games import board, moons, play, residual, strided, waves, wide
from gradguard.detect import Symptom


@torch.no_grad()
def as_norms(module: nn.Module) -> None:
    """Draw all weights about 1, as DCGAN does those of its batch norms."""
    if isinstance(module, nn.Linear | nn.Conv1d | nn.BatchNorm1d):
        module.weight.normal_(1.0, 0.02)


def swapped(params: list[Tensor], lr: float) -> Optimizer:
    """Take the learning rate for the momentum, and the momentum for the learning rate."""
    return Adam(params, 0.5, betas=(lr, 0.9))


def fading(step: int) -> float:
    """Blur less and less."""
    return max(0.0, 0.5 * (1 - step / 350))


def falling(step: int) -> float:
    """Let the learning rate fall to zero from half of the run on."""
    return min(1.0, (500 - step) / 250)


S = Symptom
_P = Program
_waves = partial(play, players=strided, real=waves, batch=48)
_moons = partial(play, players=residual, real=moons, penalty=0.05)
_board = partial(play, players=wide, real=board, batch=96, blur=fading, schedule=falling)

PROGRAMS: tuple[Program, ...] = (
    _P("gan-sines", _waves, (1e-3, 2e-3), steps=300, about="convolutions over time; the losses mirror each other"),
    _P("gan-moons-lazy", _moons, (1e-3, 2e-3), steps=450, about="every fourth loss has a penalty, and jumps"),
    _P(
        *("gan-board-blurred", _board, (2e-3, 4e-3)),
        steps=500,
        about="noise that fades makes the losses rise; the learning rate falls to 0",
    ),
    _P("adversarial-soften", soften, (2e-3, 4e-3), steps=400, about="actions that start at their ends"),
    _P("adversarial-home", home, (2e-3, 4e-3), steps=400, about="the critic's goal moves; a loss that rises at first"),
    _P("adversarial-attacked", attacked, (1e-3, 2e-3), steps=400, about="an attacker whose tanh units end at bounds"),
    _P("adversarial-fair", fair, (3e-3, 6e-3), steps=500, about="an adversary that comes to know nothing"),
    _P(
        *("gan-sines-as-norms", partial(_waves, init=as_norms), (1e-3, 2e-3), S.POOR_INITIALISATION),
        *("gan-sines", 300),
        about="normal_(1.0, 0.02), which is meant for batch norms, for all weights",
    ),
    _P(
        *("gan-moons-swapped", partial(_moons, optimizer=swapped), (1e-3, 2e-3), S.UPDATE_TOO_LARGE),
        *("gan-moons-lazy", 450),
        about="learning rate and beta 1 swapped: a rate of 0.5",
    ),
    _P(
        *("gan-board-copied", partial(_board, copies=True), (2e-3, 4e-3), S.NO_GRADIENT, "gan-board-blurred", 500),
        about="the generator was copied after its optimizer had been built",
    ),
    _P(
        *("adversarial-soften-no-eps", partial(soften, eps=0.0), (2e-3, 4e-3), S.NON_FINITE),
        *("adversarial-soften", 400),
        about="the logarithm of 1 - tanh(x)**2, which is 0 from x = 9 on",
    ),
    _P(
        *("adversarial-home-positive", partial(home, end=nn.ReLU), (2e-3, 4e-3), S.DEAD_UNITS),
        *("adversarial-home", 400),
        about="a ReLU ends a critic of what is negative",
    ),
    _P(
        *("adversarial-attacked-plain", partial(attacked, optimizer=SGD), (1e-3, 2e-3), S.SLOW_CONVERGENCE),
        *("adversarial-attacked", 400),
        about="Adam's learning rate under plain SGD",
    ),
    _P(
        *("adversarial-fair-variance", partial(fair, scale=by_variance), (3e-3, 6e-3), S.SATURATED_UNITS),
        *("adversarial-fair", 500),
        about="shares divided by their variance in place of its root, into tanh units",
    ),
)
