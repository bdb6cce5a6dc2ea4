"""What GradGuard says of training programs of which half have a planted fault; and what the rules of others say.

The corpus is ``benchmarks/faults``: small programs that train in seconds on the CPU, each at its learning rates and
with five seeds. A faulty one is a healthy one with one thing changed. Whether it is faulty is settled by the scores of
runs that nobody watched (``benchmarks/faults/corpus.py``), and not by what any rule says. What is reported was written
after the rules, by people who had not read them, and looked at once; what it showed to be wrong was mended after that.

All rules look at the same runs. GradGuard: ``Guard`` with all defaults, and ``through_time`` where the program has
recurrent modules; what counts is a warning or worse. The others, with their published defaults: see the end, and
``benchmarks/faults/peers``. Five of Debugger's rules are counted once more alone, those that are silent most often.

A fault is named where its symptom, or a word that may stand for it, is said for the first time at or after its onset.
Anything said counts leniently: any word, at or after it. Of flagged faulty: of all runs of which anything was ever
said, the share of faulty ones of which it was said at or after the onset. Figures in brackets are Wilson's 95 %
interval, as if all runs were independent; five seeds of a program are not quite.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import NamedTuple

from benchmarks.faults import tables
from benchmarks.faults.corpus import Unit, confirmed, corpus, scores
from benchmarks.faults.guarded import Guarded
from benchmarks.faults.peers import AutoTrainer, Debugger, autotrainer, debugger
from benchmarks.faults.running import SEEDS, of_processes, run
from benchmarks.faults.selection import add_selection, selected
from benchmarks.faults.tables import Rules, Verdict
from benchmarks.timing import machine, table

RESULTS = Path(__file__).parent / "results" / "diagnosis.md"
OURS = Rules("GradGuard")
SETS = (
    OURS,
    Rules("GradGuard, info too"),
    *(Rules(name, autotrainer.MEANS) for name in autotrainer.THETAS),
    Rules("SageMaker Debugger", debugger.MEANS),
    Rules("SageMaker Debugger, five rules", debugger.MEANS, frozenset(debugger.QUIET), "SageMaker Debugger"),
)


class Outcome(NamedTuple):
    """One run: what was said, how good its model became, and how many seconds it took with everybody watching."""

    verdict: Verdict
    score: float
    seconds: float


def work(unit: Unit) -> Outcome:
    """Run one unit."""
    unit, start = Unit(*unit), perf_counter()
    program, guarded, auto, debug = corpus()[unit.program], Guarded(), AutoTrainer(), Debugger()
    score = run(
        program, unit.lr, unit.seed, [auto, debug, guarded]
    )  # the others see gradients before a clipper of ours
    raised = {
        "GradGuard": guarded.raised,
        "GradGuard, info too": guarded.noted,
        **auto.raised,
        "SageMaker Debugger": debug.raised,
    }
    label = None if program.label is None else program.label.value
    verdict = Verdict(unit, program.family, label, program.onset, program.steps, raised)
    return Outcome(verdict, score, perf_counter() - start)


def changed(outcomes: Sequence[Outcome]) -> list[str]:
    """List the runs that ended otherwise than when nobody watched."""
    known = scores()
    return [
        f"{o.verdict.unit}: {o.score:.4f}, was {known[o.verdict.unit]:.4f}"
        for o in outcomes
        if o.verdict.unit in known and round(o.score, 4) != known[o.verdict.unit]
    ]


def census(half: str) -> str:
    """Count the corpus, and list what its scores do not confirm."""
    programs = [p for p in corpus().values() if half == "both" or p.reports == (half == "reporting")]
    known, rows, out = confirmed(), [], []
    scored = {(unit.program, unit.lr) for unit in scores()}
    waiting = sum((p.name, lr) not in scored for p in programs for lr in p.rates)
    for family in dict.fromkeys(p.family for p in programs):
        for faulty in (False, True):
            of = [p for p in programs if p.family == family and (p.label is not None) == faulty]
            runs = [(p.name, lr) for p in of for lr in p.rates if (p.name, lr) in scored]
            counts = [len(of), len(SEEDS) * len(runs), len(SEEDS) * sum(one in known for one in runs)]
            rows.append([family, "faulty" if faulty else "healthy", *map(str, counts)])
            out += [f"{name} at {lr:g}" for name, lr in runs if (name, lr) not in known]
    total = [str(sum(int(row[i]) for row in rows)) for i in (2, 3, 4)]
    listed = f"\n\nNot confirmed, and left out: {', '.join(out)}." if out else ""
    listed += f"\n\nOf {waiting} more learning rates no scores have been measured yet." if waiting else ""
    return table(["family", "", "programs", "runs", "confirmed"], [*rows, ["all", "", *total]]) + listed


def report(verdicts: Sequence[Verdict], half: str, *, counted: str) -> str:
    """Write everything."""
    main = [rules for rules in SETS if rules.name != "GradGuard, info too"]
    parts = [
        f"# Diagnosis of planted faults\n\n{machine()}. Half of the corpus: {half}.\n\n{_about(sys.modules[__name__])}",
        f"## The corpus\n\n{counted}",
        f"## Sets of rules\n\n{tables.overall(verdicts, SETS)}",
        f"## By planted symptom: how often it was named, %\n\n{tables.by_label(verdicts, main)}",
        *(f"## By family: {rules.name}\n\n{tables.by_family(verdicts, rules)}" for rules in main),
        *(f"## What was said: {rules.name}\n\n{tables.by_word(verdicts, rules)}" for rules in main),
        *(f"## What was said of what: {rules.name}\n\n{tables.confusion(verdicts, rules)}" for rules in main),
        f"## Faults that GradGuard did not name\n\n{tables.missed(verdicts, OURS)}",
        f"## Healthy runs that GradGuard warned of\n\n{tables.false_alarms(verdicts, OURS)}",
        f"## How the rules of others are applied\n\n{_about(autotrainer)}\n\n{_about(debugger)}",
    ]
    return "\n\n".join(parts) + "\n"


def _about(module: ModuleType) -> str:
    return (module.__doc__ or "").strip()


def main() -> None:
    """Run, print, and write where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, "reporting")
    parser.add_argument("--save", type=Path, help="file for what was said of each run")
    parser.add_argument("--load", type=Path, help="make the tables from such a file, and run nothing")
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}, too")
    arguments = parser.parse_args()
    if arguments.load:
        verdicts = tables.load(arguments.load)
    else:
        units = selected(arguments.half, arguments.only, unconfirmed=arguments.unconfirmed)
        if not units:
            parser.error(
                "every program there was looked at, and rules were mended by it: write new ones, or --half both"
            )
        outcomes = of_processes(work, units, arguments.processes)
        verdicts, other = [outcome.verdict for outcome in outcomes], changed(outcomes)
        seconds = sum(outcome.seconds for outcome in outcomes)
        print(f"{len(outcomes)} runs, {seconds / max(len(outcomes), 1):.2f} s each; {len(other)} ended otherwise")
        print("\n".join(other))
    if arguments.save:
        tables.save(verdicts, arguments.save)
    text = report(verdicts, arguments.half, counted=census(arguments.half))
    print(text)
    if arguments.write:
        RESULTS.write_text(text)


if __name__ == "__main__":
    main()
