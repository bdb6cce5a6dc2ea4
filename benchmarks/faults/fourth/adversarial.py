"""Two models or two optimizers, others than before: a retoucher, a table's forger, policies, teachers, factors."""

from __future__ import annotations

from functools import partial

from benchmarks.faults.adversarial import SQUARES
from benchmarks.faults.fourth.adversarial_models import (
    cells,
    emptied,
    mean_teacher,
    mutual,
    relational,
    retouch,
    tabular,
)
from benchmarks.faults.fourth.adversarial_turns import dock, factors, in_counts, store
from benchmarks.faults.program import Program
from benchmarks.faults.second.adversarial_games import duel
from gradguard.detect import Symptom

S = Symptom
ADAM, SGD = (2e-3, 4e-3), (0.02, 0.04)
_P = Program
_cells = partial(duel, players=tabular, real=cells, noise=8, game=SQUARES, batch=64, average=0.98)

PROGRAMS: tuple[Program, ...] = (
    _P("gan-retouch", retouch, ADAM, steps=300, about="a generator that is told mostly by the true pictures"),
    _P("gan-cells", _cells, (1e-3, 2e-3), steps=400, about="few data; a mean of the generator is what is scored"),
    _P("adversarial-dock", dock, ADAM, steps=300, about="a policy that starts with all moves alike"),
    _P("adversarial-store", store, (1e-3, 2e-3), steps=500, about="a goal that moves each 20 steps"),
    _P("adversarial-mean-teacher", mean_teacher, ADAM, steps=500, about="a second loss that comes in by and by"),
    _P("adversarial-mutual", mutual, SGD, steps=300, about="each network's goal is the other one"),
    _P("adversarial-relational", relational, ADAM, steps=400, about="distances that are learnt while they change"),
    _P("adversarial-factors", factors, (0.02, 0.04), steps=400, about="one of two tables rests at each step"),
    _P(
        *("gan-cells-emptied", partial(_cells, init=emptied), (1e-3, 2e-3), S.POOR_INITIALISATION, "gan-cells", 400),
        about="all of the generator's weights begin at zero",
    ),
    _P(
        *("adversarial-dock-counts", partial(dock, seen=in_counts), ADAM, S.SATURATED_UNITS, "adversarial-dock", 300),
        about="counts of thousands, as the encoders give them, into tanh units",
    ),
    _P(
        *("adversarial-store-hasty", store, (1.0, 2.0), S.UPDATE_TOO_LARGE, "adversarial-store", 500),
        about="1 and 2, which were meant in thousandths",
    ),
    _P(
        *("adversarial-mean-teacher-shared", partial(mean_teacher, shared=True), ADAM, S.NO_GRADIENT),
        *("adversarial-mean-teacher", 500),
        about="the teacher has the student's own layers, and freezing it freezes them",
    ),
    _P(
        *("adversarial-mutual-unscaled", partial(mutual, unscale=2.0**16), SGD, S.UPDATE_TOO_SMALL),
        *("adversarial-mutual", 300),
        about="gradients are unscaled by 65,536, though the loss wasn't scaled",
    ),
    _P(
        *("adversarial-relational-no-eps", partial(relational, eps=0.0), ADAM, S.NON_FINITE),
        *("adversarial-relational", 400),
        about="the slope of a root at 0, where an example is compared with itself",
    ),
    _P(
        *("adversarial-factors-alike", partial(factors, alike=True), (0.02, 0.04), S.POOR_INITIALISATION),
        *("adversarial-factors", 400),
        about="both tables begin as 0.1 everywhere: all factors stay the same",
    ),
    _P(
        *("adversarial-mutual-not-zeroed", partial(mutual, forgets=True), SGD, S.UPDATE_TOO_LARGE),
        *("adversarial-mutual", 300),
        about="no gradient is ever set to zero",
    ),
)
