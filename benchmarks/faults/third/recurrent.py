"""..."""

from __future__ import annotations

from benchmarks.faults.program import Program

PROGRAMS: tuple[Program, ...] = ()
