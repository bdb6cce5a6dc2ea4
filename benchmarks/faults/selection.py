"""Which runs of the corpus are looked at: those of a half that are confirmed, or of some names; and their families."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.faults.corpus import Unit, confirmed, corpus, units

HALVES = ("reporting", "tuning", "both")


def selected(half: str, only: Sequence[str] | None = None, *, unconfirmed: bool = False) -> list[Unit]:
    """Give the runs of a half.

    Args:
        half: one of ``HALVES``.
        only: beginnings of the programs' names; all of them by default.
        unconfirmed: whether those count, too, whose scores don't say what their label says, or are not known yet.
    """
    programs, known = corpus(), set() if unconfirmed else confirmed()
    return [
        unit
        for unit in units()
        if (half == "both" or programs[unit.program].reports == (half == "reporting"))
        and (not only or unit.program.startswith(tuple(only)))
        and (unconfirmed or (unit.program, unit.lr) in known)
    ]


def add_selection(parser: argparse.ArgumentParser, half: str) -> None:
    """Add what says which runs, and in how many processes."""
    parser.add_argument("--half", choices=HALVES, default=half)
    parser.add_argument("--only", nargs="+", help="beginnings of names")
    parser.add_argument("--unconfirmed", action="store_true", help="runs that no scores confirm, too")
    parser.add_argument("--processes", type=int, default=2)
