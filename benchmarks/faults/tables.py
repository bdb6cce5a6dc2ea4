"""From what was said of each run to tables: how often it was right, how often it was wrong, and how late it came.

A symptom counts as named from the onset of the fault on; what is said before it is no merit.
"""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.faults.corpus import Unit
from benchmarks.timing import table

K = TypeVar("K", bound=Any)


class Verdict(NamedTuple):
    """What was said of one run.

    Attributes:
        unit: the run.
        family: the kind of program.
        label: the planted symptom; None of a healthy run.
        onset: step from which the fault is there.
        steps: of the run.
        raised: by set of rules, in its own words: step at which each problem was first raised.
    """

    unit: Unit
    family: str
    label: str | None
    onset: int
    steps: int
    raised: Mapping[str, Mapping[str, int]]


class Rules(NamedTuple):
    """A set of rules.

    Attributes:
        name: as in ``Verdict.raised``.
        means: symptoms that a word stands for; itself where it is not listed.
        words: those that count; all by default.
        of: name in ``Verdict.raised``, where it differs.
    """

    name: str
    means: Mapping[str, frozenset[str]] = {}
    words: frozenset[str] | None = None
    of: str | None = None

    def said(self, verdict: Verdict) -> dict[str, int]:
        """Give the words that count, with their steps."""
        raised = verdict.raised[self.of or self.name]
        return {word: step for word, step in raised.items() if self.words is None or word in self.words}

    def meant(self, word: str) -> frozenset[str]:
        """Give the symptoms that a word stands for."""
        return self.means.get(word, frozenset({word}))

    def named_at(self, verdict: Verdict) -> int | None:
        """Give the step at which the planted symptom was first named; None where it was not."""
        steps = [step for word, step in self.said(verdict).items() if verdict.label in self.meant(word)]
        return min((step for step in steps if step >= verdict.onset), default=None)

    def flags(self, verdict: Verdict) -> bool:
        """Whether anything was said; of a faulty run, from its onset on."""
        return any(verdict.label is None or step >= verdict.onset for step in self.said(verdict).values())


def wilson(hits: int, of: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Give Wilson's interval of a share (JASA 22, 1927), 95 % by default; the whole range where nothing was counted."""
    if not of:
        return 0.0, 1.0
    share, square = hits / of, z * z / of
    middle = share + square / 2
    half = z * math.sqrt(share * (1 - share) / of + square / (4 * of))
    low, high = (middle - half) / (1 + square), (middle + half) / (1 + square)
    return (0.0 if hits == 0 else low), (1.0 if hits == of else high)


def share(hits: int, of: int) -> str:
    """Write a share in per cent, with its interval and its counts."""
    if not of:
        return "-"
    low, high = wilson(hits, of)
    return f"{100 * hits / of:.1f} [{100 * low:.1f}, {100 * high:.1f}] ({hits}/{of})"


def delay(verdicts: Iterable[Verdict], rules: Rules) -> str:
    """Write the median delay from onset to naming: in steps, and in per cent of the run."""
    named = [(step - v.onset, 100 * (step - v.onset) / v.steps) for v in verdicts if (step := rules.named_at(v))]
    if not named:
        return "-"
    steps, shares = zip(*named, strict=True)
    return f"{statistics.median(steps):.0f} ({statistics.median(shares):.0f} %)"


def overall(verdicts: Sequence[Verdict], sets: Sequence[Rules]) -> str:
    """Compare sets of rules."""
    faulty, healthy = _parted(verdicts)
    rows = [[rules.name, *_figures(faulty, healthy, rules)] for rules in sets]
    return table(["", *_HEADER], rows)


def by_family(verdicts: Sequence[Verdict], rules: Rules) -> str:
    """Tell the families apart."""
    rows = []
    for family, of in _groups(verdicts, lambda v: v.family).items():
        rows.append([family, *_figures(*_parted(of), rules)])
    return table(["", *_HEADER], rows)


def by_label(verdicts: Sequence[Verdict], sets: Sequence[Rules]) -> str:
    """Give, for each planted symptom, how often it was named by each set of rules; and the first one's delay."""
    rows = []
    for label, of in _groups([v for v in verdicts if v.label], lambda v: v.label or "").items():
        named = [share(sum(rules.named_at(v) is not None for v in of), len(of)) for rules in sets]
        rows.append([label, *named, delay(of, sets[0])])
    return table(["planted", *(rules.name for rules in sets), f"delay of {sets[0].name}"], rows)


def by_word(verdicts: Sequence[Verdict], rules: Rules) -> str:
    """Give, for each thing that was said, how often it is what was planted, and how often anything was planted."""
    said = {word for v in verdicts for word in rules.said(v)}
    rows = []
    for word in sorted(said):
        of = [v for v in verdicts if word in rules.said(v)]
        planted = sum(v.label in rules.meant(word) for v in of)
        rows.append([word, share(planted, len(of)), share(sum(v.label is not None for v in of), len(of))])
    return table(["said", "it is what was planted", "the run is faulty"], rows)


def missed(verdicts: Sequence[Verdict], rules: Rules) -> str:
    """List the faulty runs whose fault was not named: how many of each program, and what was said instead."""
    of = [v for v in verdicts if v.label and rules.named_at(v) is None]
    rows = []
    for (label, program, lr), runs in _groups(of, lambda v: (v.label or "", v.unit.program, v.unit.lr)).items():
        words = Counter(
            word if step >= v.onset else f"{word}, too early" for v in runs for word, step in _said(v, rules)
        )
        rows.append([label, program, f"{lr:g}", str(len(runs)), _counted(words)])
    return table(["planted", "program", "learning rate", "runs missed", "said instead (runs)"], rows)


def false_alarms(verdicts: Sequence[Verdict], rules: Rules) -> str:
    """List the healthy runs of which something was said."""
    of = [v for v in verdicts if v.label is None and rules.flags(v)]
    rows = []
    for (program, lr), runs in _groups(of, lambda v: (v.unit.program, v.unit.lr)).items():
        words = Counter(word for v in runs for word, _ in _said(v, rules))
        rows.append([program, f"{lr:g}", str(len(runs)), _counted(words)])
    return table(["program", "learning rate", "runs flagged", "said (runs)"], rows)


def confusion(verdicts: Sequence[Verdict], rules: Rules) -> str:
    """Count what was said of the runs of each planted symptom, and of the healthy ones."""
    rows = []
    for label, of in _groups(verdicts, lambda v: v.label or "nothing").items():
        words = Counter(word for v in of for word, _ in _said(v, rules))
        silent = sum(not rules.said(v) for v in of)
        rows.append([label, str(len(of)), str(silent), _counted(words)])
    return table(["planted", "runs", "nothing said", "said (runs)"], rows)


def save(verdicts: Iterable[Verdict], path: Path) -> None:
    """Write verdicts, one a line."""
    path.write_text("[\n" + ",\n".join(json.dumps(list(verdict)) for verdict in verdicts) + "\n]\n")


def load(path: Path) -> list[Verdict]:
    """Read them back."""
    return [Verdict(Unit(*unit), *rest) for unit, *rest in json.loads(path.read_text())]


_HEADER = ("fault named, %", "anything said of faulty, %", "healthy flagged, %", "of flagged faulty, %", "delay, steps")


def _figures(faulty: Sequence[Verdict], healthy: Sequence[Verdict], rules: Rules) -> list[str]:
    named = sum(rules.named_at(v) is not None for v in faulty)
    right, wrong = (sum(rules.flags(v) for v in of) for of in (faulty, healthy))
    too_early = sum(bool(rules.said(v)) and not rules.flags(v) for v in faulty)
    return [
        share(named, len(faulty)),
        share(right, len(faulty)),
        share(wrong, len(healthy)),
        share(right, right + too_early + wrong),
        delay(faulty, rules),
    ]


def _parted(verdicts: Iterable[Verdict]) -> tuple[list[Verdict], list[Verdict]]:
    faulty: list[Verdict] = []
    healthy: list[Verdict] = []
    for verdict in verdicts:
        (healthy if verdict.label is None else faulty).append(verdict)
    return faulty, healthy


def _groups(verdicts: Iterable[Verdict], key: Callable[[Verdict], K]) -> dict[K, list[Verdict]]:
    found: dict[K, list[Verdict]] = {}
    for verdict in verdicts:
        found.setdefault(key(verdict), []).append(verdict)
    return {name: found[name] for name in sorted(found)}


def _said(verdict: Verdict, rules: Rules) -> list[tuple[str, int]]:
    return list(rules.said(verdict).items())


def _counted(words: Counter[str]) -> str:
    return ", ".join(f"{word} ({count})" for word, count in words.most_common()) or "nothing"
