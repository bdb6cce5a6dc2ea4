"""Two models or two optimizers, others than before: tables that are forged, towers, relays, worlds and policies."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.adversarial import HINGE
from benchmarks.faults.fifth import adversarial_models as models
from benchmarks.faults.fifth.adversarial_turns import balance, grouped
from benchmarks.faults.program import Program
from benchmarks.faults.second.adversarial_games import duel
from gradguard.detect import Symptom

S = Symptom
ADAM = (1e-3, 2e-3)
_P = Program
_stations = partial(duel, players=models.weather, real=models.stations, noise=6, batch=64, average=0.98)
_orbits = partial(models.scheduled, make=partial(duel, players=models.going, real=models.orbits, noise=4, game=HINGE,
                  batch=64))  # fmt: skip
_curious = partial(models.scheduled, make=models.curious)

PROGRAMS: tuple[Program, ...] = (
    _P("gan-stations", partial(_stations, init=models.he), ADAM, steps=400, about="neither loss falls"),
    _P("gan-orbits", partial(_orbits, factor=models.falling), ADAM, steps=450, about="a rate that falls to a tenth"),
    _P("adversarial-balance", balance, ADAM, steps=200, about="poles fall seldom: most rewards are 0"),
    _P("adversarial-towers", models.towers, (2e-3, 4e-3), steps=400, about="one loss, and an optimizer for each tower"),
    _P("adversarial-relay", models.relay, (2e-3, 4e-3), steps=400),
    _P(
        "adversarial-curious",
        partial(_curious, factor=models.warm),
        (2e-3, 4e-3),
        steps=500,
        about="a rate that rises first",
    ),
    _P("adversarial-grouped", grouped, ADAM, steps=300, about="a frozen copy; groups that teach nothing"),
    _P(
        *("gan-stations-inverted", partial(_stations, init=partial(models.he, inverted=True)), ADAM),
        *(S.POOR_INITIALISATION, "gan-stations", 400),
        about="He's deviation upside down: sqrt(inputs / 2)",
    ),
    _P(
        *("gan-orbits-rate-itself", partial(_orbits, factor=models.rate_itself), ADAM, S.UPDATE_TOO_SMALL),
        *("gan-orbits", 450),
        about="the learning rate, where LambdaLR wants a factor: its square is used",
    ),
    _P(
        *("adversarial-relay-blank", partial(models.relay, blank=True), (2e-3, 4e-3), S.POOR_INITIALISATION),
        *("adversarial-relay", 400),
        about="both sides of the joint are zeroed, as one side of an adapter is: neither moves the other",
    ),
    _P(
        *("adversarial-towers-as-read", partial(models.towers, scaled=False), (2e-3, 4e-3), S.SATURATED_UNITS),
        *("adversarial-towers", 400),
        about="what the scaler gave back was never used: areas of 2,000 into tanh units",
    ),
    _P(
        *("adversarial-relay-no-grad", partial(models.relay, frozen=True), (2e-3, 4e-3), S.NO_GRADIENT),
        *("adversarial-relay", 400),
        about="the encoder still runs under no_grad(), as in its evaluation",
    ),
    _P(
        *(
            "adversarial-curious-warm-steps",
            partial(_curious, factor=models.warm_steps),
            (2e-3, 4e-3),
            S.UPDATE_TOO_LARGE,
        ),
        *("adversarial-curious", 500),
        about="LambdaLR is told min(step, 200), which wasn't divided by 200",
    ),
    _P(
        *("adversarial-grouped-no-eps", partial(grouped, eps=0.0), ADAM, S.NON_FINITE, "adversarial-grouped", 300),
        about="a group whose answers are all wrong: 0 / 0",
    ),
)
