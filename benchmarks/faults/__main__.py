"""Run every program of the corpus without anybody watching, write down its scores, and say which labels they confirm.

``--only`` runs the programs whose names begin with one of some words, and says how long a run takes.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from time import perf_counter

from benchmarks.faults.corpus import SCORES, Unit, confirmed, corpus, scores, units
from benchmarks.faults.running import SEEDS, of_processes, run


def work(unit: Unit) -> tuple[Unit, float, float]:
    """Run one unit; give its score and the seconds that it took."""
    unit = Unit(*unit)
    start = perf_counter()
    score = run(corpus()[unit.program], unit.lr, unit.seed)
    return unit, score, perf_counter() - start


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", help="beginnings of names; the others' scores stay as they are")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    chosen = [u for u in units() if not arguments.only or u.program.startswith(tuple(arguments.only))]
    done = of_processes(work, chosen, arguments.processes)
    known = scores() if arguments.only and SCORES.exists() else {}
    known |= {unit: score for unit, score, _ in done}
    kept = [[*unit, round(known[unit], 4)] for unit in units() if unit in known]
    SCORES.write_text("[\n" + ",\n".join(json.dumps(row) for row in kept) + "\n]\n")
    ok = confirmed() if len(kept) == len(units()) else set()
    seconds = {unit: time for unit, _, time in done}
    for name in dict.fromkeys(u.program for u in chosen):
        program = corpus()[name]
        for lr in program.rates:
            of = [Unit(name, lr, seed) for seed in SEEDS]
            label = "healthy" if program.label is None else program.label.value
            mark = "" if not ok else "confirmed" if (name, lr) in ok else "NOT CONFIRMED"
            time = sum(seconds[u] for u in of) / len(of)
            print(f"{name:36} {lr:<8g} {label:20} {' '.join(f'{known[u]:.2f}' for u in of)}  {time:.2f} s {mark}")
    if ok:
        halves = Counter((corpus()[n].reports, corpus()[n].label is not None) for n, _ in ok)
        for (reports, faulty), count in sorted(halves.items()):
            half, kind = "reporting" if reports else "tuning", "faulty" if faulty else "healthy"
            print(f"{half}: {count * len(SEEDS)} {kind} runs")


if __name__ == "__main__":
    main()
