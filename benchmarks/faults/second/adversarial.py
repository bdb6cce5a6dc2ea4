"""Two models and two optimizers: conditional, convolutional and averaged generators, actors and critics, domains."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.optim import RMSprop

from benchmarks.faults.adversarial import BCE, HINGE, SQUARES, Game
from benchmarks.faults.program import Program
from benchmarks.faults.second.adversarial_agents import domains, latent, steer, walk
from benchmarks.faults.second.adversarial_games import (
    blobs,
    conditional,
    convolved,
    duel,
    images,
    people,
    roll,
    smoothed,
    spectral,
    tanhs,
)
from gradguard.detect import Symptom


def by_hand(forge: nn.Sequential, judge: nn.Sequential) -> None:
    """Draw all weights as ``nn.Parameter(torch.randn(a, b))`` does."""
    for module in [*forge, *judge]:
        if isinstance(module, nn.Linear):
            module.weight.normal_()


def shifted(forge: nn.Sequential, judge: nn.Sequential) -> None:
    """Let the batch norms before a ReLU give what is far below 0."""
    for module in forge:
        if isinstance(module, nn.BatchNorm2d):
            module.bias.fill_(-5.0)


def as_measured(x: Tensor) -> Tensor:
    """Turn standardised values back to millimetres, grams and days."""
    return x * torch.tensor([100.0, 14e3, 5800.0]) + torch.tensor([1710.0, 74e3, 15700.0])


S = Symptom
SMOOTH = Game(smoothed, BCE.forge)
_named = partial(duel, players=conditional, real=blobs)
_pixels = partial(duel, players=convolved, real=images, noise=10, game=SMOOTH, batch=32)
_rolled = partial(duel, players=spectral, real=roll, game=HINGE, rounds=2, factors=(1.0, 2.0), average=0.98)
_people = partial(duel, players=tanhs, real=people, optimizer=RMSprop, batch=64, game=SQUARES)
_P = Program

PROGRAMS: tuple[Program, ...] = (
    _P("gan-conditional", _named, (1e-3, 2e-3), steps=700, about="given classes; losses come to rest at chance"),
    _P("gan-pixels", _pixels, (2e-3, 3e-3), steps=300, about="smoothed labels; a tanh end that most pixels fill"),
    _P("gan-spectral-mean", _rolled, (1e-3, 2e-3), steps=400, about="normed weights; the scored mean lags behind"),
    _P("gan-people", _people, (1e-3, 2e-3), steps=600, about="tanh units in the discriminator, by RMSprop"),
    _P("adversarial-domains", domains, (0.05, 0.1), steps=400, about="the domains' loss rests at log 2, as it should"),
    _P("adversarial-latent", latent, (2e-3, 4e-3), steps=500, about="a judge of codes that comes to know nothing"),
    _P(
        "adversarial-steer", steer, (1e-3, 2e-3), steps=600, about="the actor's loss has no end, the critic's data move"
    ),
    _P("adversarial-walk", walk, (5e-3, 1e-2), steps=350, about="noisy policy gradients, masked moves"),
    _P(
        *("gan-conditional-randn", partial(_named, init=by_hand), (1e-3, 2e-3), S.POOR_INITIALISATION),
        *("gan-conditional", 700),
        about="layers made by hand, their weights of variance 1",
    ),
    _P(
        *("gan-pixels-shifted", partial(_pixels, init=shifted), (2e-3, 3e-3), S.DEAD_UNITS, "gan-pixels", 300),
        about="biases of the batch norms at -5, before a ReLU",
    ),
    _P(
        *("gan-people-as-measured", partial(_people, seen=as_measured), (1e-3, 2e-3), S.SATURATED_UNITS),
        *("gan-people", 600),
        about="millimetres and grams into tanh units",
    ),
    _P(
        *("adversarial-domains-twice-mean", partial(domains, weight=1 / 256), (0.05, 0.1), S.SLOW_CONVERGENCE),
        *("adversarial-domains", 400),
        about="mean losses once more divided by the examples, under SGD",
    ),
    _P(
        *("adversarial-steer-leaping", partial(steer, factors=(1e3, 1e3)), (1e-3, 2e-3), S.UPDATE_TOO_LARGE),
        *("adversarial-steer", 600),
        about="both learning rates times 1000",
    ),
    _P(
        *("adversarial-steer-sampled", partial(steer, draw=Normal.sample), (1e-3, 2e-3), S.NO_GRADIENT),
        *("adversarial-steer", 600),
        about="sample() in place of rsample(): nothing gets to the actor",
    ),
    _P(
        *("adversarial-walk-infinite", partial(walk, shut=float("-inf")), (5e-3, 1e-2), S.NON_FINITE),
        *("adversarial-walk", 350),
        about="masked by -inf: 0 times -inf in the entropy",
    ),
)
