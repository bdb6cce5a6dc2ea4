"""Run programs without anybody watching, and write down how good their models became."""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from benchmarks.faults.corpus import Unit, corpus, keep, scores
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
    known = scores()
    waiting = [unit for unit in chosen if anew or unit not in known]
    seconds: dict[Unit, float] = {}
    for first in range(0, len(waiting), AT_ONCE):
        for unit, found, time in of_processes(score, waiting[first : first + AT_ONCE], processes):
            known[unit], seconds[unit] = found, time
        keep(known, [unit.program for unit in seconds])
    return seconds
