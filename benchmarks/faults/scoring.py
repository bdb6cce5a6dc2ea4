"""Run programs without anybody watching, and write down how good their models became."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from time import perf_counter

from benchmarks.faults.corpus import SCORES, Unit, corpus, scores, units
from benchmarks.faults.running import of_processes, run

AT_ONCE = 200  # runs between two times that the scores are written down


def score(unit: Unit) -> tuple[Unit, float, float]:
    """Run one unit; give its score and the seconds that it took."""
    unit = Unit(*unit)
    start = perf_counter()
    found = run(corpus()[unit.program], unit.lr, unit.seed)
    return unit, found, perf_counter() - start


def score_all(chosen: Sequence[Unit], processes: int, *, anew: bool) -> dict[Unit, float]:
    """Score what has no score, or all of it; give the seconds that each run took."""
    known = scores() if SCORES.exists() else {}
    waiting = [unit for unit in chosen if anew or unit not in known]
    seconds: dict[Unit, float] = {}
    for first in range(0, len(waiting), AT_ONCE):
        for unit, found, time in of_processes(score, waiting[first : first + AT_ONCE], processes):
            known[unit], seconds[unit] = found, time
        write(known.items())
    return seconds


def write(known: Iterable[tuple[Unit, float]]) -> None:
    """Write down scores, in the order of the corpus."""
    found = dict(known)
    rows = [json.dumps([*unit, round(found[unit], 4)]) for unit in units() if unit in found]
    SCORES.write_text("[\n" + ",\n".join(rows) + "\n]\n")
