"""Nothing yet."""

from benchmarks.faults.program import Program

PROGRAMS: tuple[Program, ...] = ()
