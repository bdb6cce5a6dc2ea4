"""Two models and two optimizers, others than those of the first five generations."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.adversarial import SQUARES
from benchmarks.faults.program import Program
from benchmarks.faults.second.adversarial_games import duel
from benchmarks.faults.sixth import adversarial_models as models
from benchmarks.faults.sixth.adversarial_turns import nearby, offers
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (1e-3, 2e-3), (0.01, 0.02)
_P = Program
_patterns = partial(duel, players=models.painters, noise=8, batch=64)
_returns = partial(duel, players=models.traders, real=models.returns, noise=6, game=SQUARES, batch=64)

PROGRAMS: tuple[Program, ...] = (
    _P("gan-patterns", partial(_patterns, real=models.patterns), ADAM, steps=450, about="neither loss falls"),
    _P("gan-returns", _returns, ADAM, steps=500, about="some days are far from all others"),
    _P("adversarial-nearby", nearby, ADAM, steps=400, about="a policy that starts with all moves alike"),
    _P("adversarial-offers", offers, (2e-3, 4e-3), steps=600, about="few examples make most of the actor's loss"),
    _P("adversarial-matching", models.matching, SGD, steps=500, about="one loss, and an optimizer for each tower"),
    _P("adversarial-trunk", models.trunk, (2e-3, 4e-3), steps=500, about="frozen at each other step, as is meant"),
    _P(
        *("gan-patterns-bytes", partial(_patterns, real=partial(models.patterns, divided=False)), ADAM),
        *(S.SATURATED_UNITS, "gan-patterns", 450),
        about="a generator that ends in a tanh, and data from 0 to 255",
    ),
    _P(
        *("adversarial-nearby-gain", partial(nearby, gain=100.0), ADAM, S.POOR_INITIALISATION),
        *("adversarial-nearby", 400),
        about="a gain of 100 in place of 1 / 100 for the actor's last layer: very sure from the start",
    ),
    _P(
        *("adversarial-nearby-stale", partial(nearby, stale=True), ADAM, S.NO_GRADIENT, "adversarial-nearby", 400),
        about="the new chances are asked of the copy that acts: the actor has no part in its loss",
    ),
    _P(
        *("adversarial-offers-cents", partial(offers, unit=100.0), (2e-3, 4e-3), S.NON_FINITE),
        *("adversarial-offers", 600),
        about="rewards in cents in place of euros: exp() of hundreds",
    ),
    _P(
        *("adversarial-matching-zeroed-twice", partial(models.matching, twice=True), SGD, S.UPDATE_TOO_LARGE),
        *("adversarial-matching", 500),
        about="one tower's gradients are set to zero twice, and the other's never",
    ),
    _P(
        *("adversarial-trunk-left-frozen", partial(models.trunk, thaws=False), (2e-3, 4e-3), S.NO_GRADIENT),
        *("adversarial-trunk", 500),
        about="requires_grad_(False) for the heads' turn, and nothing that takes it back",
    ),
)
