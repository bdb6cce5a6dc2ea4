"""All programs, by name, and what is known of their runs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.program import Program
from benchmarks.faults.running import SEEDS

KINDS = ("dense", "convolutional", "recurrent", "attention", "adversarial", "embedding", "autoencoder")
# Six generations. The reporting half of each was looked at once, and rules were mended by it; the next ones were
# written after that, by people who had not read the rules. Families that come after these have not been looked at.
PLACES = ("second", "third", "fourth", "fifth", "sixth")
SEEN = (*KINDS, *(f"{place}.{kind}" for place in PLACES for kind in KINDS))
FAMILIES = SEEN
SCORES = Path(__file__).with_name("scores")
MARGIN = 0.1  # by which a fault has to lower the score of its sibling's run of the same seed
LEARNT = 0.3  # score that a healthy run has to reach
SEEDS_OF = 4  # seeds of five on which it has to


@cache
def corpus() -> Mapping[str, Program]:
    """Give all programs by name."""
    found: dict[str, Program] = {}
    for family in FAMILIES:
        for program in import_module(f"benchmarks.faults.{family}").PROGRAMS:
            if program.name in found:
                raise ValueError(f"Two programs are called {program.name}.")
            found[program.name] = replace(program, family=family, is_seen=family in SEEN)
    return found


class Unit(NamedTuple):
    """One run."""

    program: str
    lr: float
    seed: int


def units() -> list[Unit]:
    """Give all runs of the corpus."""
    return [Unit(p.name, lr, seed) for p in corpus().values() for lr in p.rates for seed in SEEDS]


def scores() -> dict[Unit, float]:
    """Give the final scores, as measured once by ``python -m benchmarks.faults`` without anybody watching."""
    rows = [row for path in SCORES.glob("*.json") for row in json.loads(path.read_text())]
    return {Unit(name, float(lr), seed): score for name, lr, seed, score in rows}


def keep(known: Mapping[Unit, float], programs: Iterable[str]) -> None:
    """Write down the scores of the families that some programs are of, in the order of the corpus; a file for each."""
    for family in {corpus()[name].family for name in programs}:
        here = [unit for unit in units() if unit in known and corpus()[unit.program].family == family]
        rows = ",\n".join(json.dumps([*unit, round(known[unit], 4)]) for unit in here)
        (SCORES / f"{family}.json").write_text(f"[\n{rows}\n]\n")


def confirmed() -> set[tuple[str, float]]:
    """Give the programs and learning rates whose runs are what they are said to be, by their scores alone.

    Healthy: the score reaches ``LEARNT`` on four of five seeds. Faulty: it is lower by ``MARGIN`` than that of the
    healthy sibling's run with the same seed and place in the list of learning rates, on four of five seeds, and that
    run is healthy itself.
    """
    measured, programs = scores(), corpus()
    known = {unit: measured.get(unit, math.nan) for unit in units()}
    found = set()
    for program in programs.values():
        for place, lr in enumerate(program.rates):
            own = [known[Unit(program.name, lr, seed)] for seed in SEEDS]
            if program.label is None:
                holds = [score >= LEARNT for score in own]
            else:
                healthy = programs[program.sibling or ""]
                other = [known[Unit(healthy.name, healthy.rates[place], seed)] for seed in SEEDS]
                holds = [b >= LEARNT and a <= b - MARGIN for a, b in zip(own, other, strict=True)]
            if sum(holds) >= SEEDS_OF:
                found.add((program.name, lr))
    return found
