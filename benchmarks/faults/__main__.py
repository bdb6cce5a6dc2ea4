"""Run every program of the corpus without anybody watching, write down its scores, and say which labels they confirm.

What has a score is not run again, unless it is asked for by ``--only`` (programs whose names begin with one of some
words) together with ``--anew``.
"""

from __future__ import annotations

import argparse
from collections import Counter

from benchmarks.faults.corpus import Unit, confirmed, corpus, scores, units
from benchmarks.faults.running import SEEDS
from benchmarks.faults.scoring import score_all


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", default=[""], help="beginnings of names")
    parser.add_argument("--place", type=int, nargs="+", default=[0, 1], help="places in the lists of learning rates")
    parser.add_argument("--anew", action="store_true", help="run also what has a score")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    programs = corpus()
    chosen = [
        unit
        for unit in units()
        if unit.program.startswith(tuple(arguments.only))
        and programs[unit.program].rates.index(unit.lr) in arguments.place
    ]
    seconds = score_all(chosen, arguments.processes, anew=arguments.anew)
    known, ok = scores(), confirmed()
    for name, lr in dict.fromkeys((unit.program, unit.lr) for unit in chosen):
        label = programs[name].label
        of = [Unit(name, lr, seed) for seed in SEEDS]
        spent = sum(seconds.get(unit, 0.0) for unit in of) / len(of)
        mark = "" if (name, lr) in ok else "NOT CONFIRMED"
        kind = "healthy" if label is None else label.value
        print(f"{name:40} {lr:<8g} {kind:20} {' '.join(f'{known[unit]:.2f}' for unit in of)}  {spent:.2f} s {mark}")
    halves = Counter((programs[name].reports, programs[name].label is not None) for name, _ in ok)
    for (reports, faulty), count in sorted(halves.items()):
        half, kind = "reporting" if reports else "tuning", "faulty" if faulty else "healthy"
        print(f"{half}: {count * len(SEEDS)} {kind} runs")


if __name__ == "__main__":
    main()
