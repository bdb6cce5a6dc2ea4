"""A run with a guard: what GradGuard says of it, and when."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from benchmarks.faults.program import Loop, Program
from gradguard import Guard
from gradguard.detect import Severity
from gradguard.guard import Flush


def guard_of(program: Program, loop: Loop, **settings: Any) -> Guard:
    """Guard a loop as somebody would who takes every default and switches everything on."""
    return Guard(loop.models, loop.optimizers, clip=loop.clip, through_time=program.through_time, **settings)


class AbstractGuarded(ABC):
    """Watches a run with a guard.

    Attributes:
        now: step of the loop that is being made.
    """

    settings: ClassVar[Mapping[str, Any]] = {}

    def __init__(self) -> None:
        self.now = 1
        self.guard: Guard | None = None

    @abstractmethod
    def heard(self, flush: Flush) -> None:
        """Take in what a flush brought."""

    def start(self, program: Program, loop: Loop) -> None:
        self.guard = guard_of(program, loop, **self.settings)
        self.guard.listen(self.heard)

    def record(self, step: int, loss: torch.Tensor, optimizer: str | None) -> None:
        assert self.guard is not None
        self.guard.record_loss(loss, optimizer)

    def after(self, step: int) -> None:
        self.now = step + 1

    def end(self) -> None:
        assert self.guard is not None
        self.now -= 1  # what the last flush brings is of the steps that were made
        self.guard.close()


class Guarded(AbstractGuarded):
    """Notes what the guard says.

    Attributes:
        raised: step of the loop at which each symptom was first noticed as a warning or worse.
        noted: the same at any severity.
    """

    def __init__(self) -> None:
        super().__init__()
        self.raised: dict[str, int] = {}
        self.noted: dict[str, int] = {}

    def heard(self, flush: Flush) -> None:
        for event in flush.events:
            name = event.finding.symptom.value
            self.noted.setdefault(name, self.now)
            if event.finding.severity is not Severity.INFO:
                self.raised.setdefault(name, self.now)
