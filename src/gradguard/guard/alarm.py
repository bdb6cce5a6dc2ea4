"""What is said while the run goes on: findings as they are noticed, and the end of a strict run."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, final

import torch
from torch import distributed

from gradguard.detect import Finding, Severity
from gradguard.errors import CriticalFindingError, GradGuardWarning
from gradguard.guard.journal import Flush, Journal
from gradguard.record import HostReader

FAILED = f"failed: {CriticalFindingError.__name__}"  # how the record of a run ends that a finding stopped


@final
class Alarm:
    """Hears what each flush finds. Tells it, once for each symptom and again where it is worse; remembers what stops.

    Args:
        strict: whether a critical finding that still holds is to stop the run.
        notify: functions to call with a finding; of several processes, rank 0 calls them.
        journal: knows what was found before, in the run that this one goes on from as well.
        reader: brings over whether another process stops.
    """

    def __init__(
        self, strict: bool, notify: Sequence[Callable[[Finding], object]], journal: Journal, reader: HostReader
    ) -> None:
        self.strict, self.notify, self.journal, self.reader = strict, tuple(notify), journal, reader
        self.critical: Finding | None = None
        self.elsewhere = self.warned = False
        if strict or notify:
            journal.listeners.append(self.take)

    def take(self, flush: Flush) -> None:
        """Heed what was raised, ended or changed."""
        before = self.journal.events[: len(self.journal.events) - len(flush.events)]
        for event in flush.events:
            one = event.finding
            about = [
                e.finding for e in before if (e.finding.symptom, e.finding.optimizer) == (one.symptom, one.optimizer)
            ]
            if all(known.severity.rank < one.severity.rank for known in about):
                self._tell(one)
            before = [*before, event]
        if self.strict:
            self.critical = self.critical or critical_in(flush)

    def _tell(self, finding: Finding) -> None:
        if not self.notify or rank() not in (None, 0):
            return
        for function in self.notify:
            try:
                function(finding)
            except Exception as error:
                if not self.warned:
                    self.warned = True
                    name = getattr(function, "__name__", type(function).__name__)
                    warnings.warn(
                        f"A finding could not be told: notify={name} raised {type(error).__name__}: {error}. Training "
                        "goes on.",
                        GradGuardWarning,
                        stacklevel=2,
                    )

    def rings(self, device: torch.device, *, together: bool) -> bool:
        """Say whether the run has to stop: of several processes, where one has to, if all ask ``together``.

        Host sync: one in several processes.
        """
        if self.strict and rank() is not None:
            if not together:
                return False
            flag = torch.tensor(float(self.critical is not None), device=device)
            distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
            self.elsewhere = bool(self.reader.read([flag])[0])
        return self.critical is not None or self.elsewhere

    def error(self) -> CriticalFindingError:
        """Give what a strict run ends with."""
        return stopped(self.critical)


def critical_in(flush: Flush) -> Finding | None:
    """Give the first critical finding that holds and is new, or was seen again: a resumed run may have brought it."""
    new = [event.finding for event in flush.events]
    again = [one for one in flush.findings if one.last_step >= int(flush.block.steps[0])]
    stops = (one for one in (*new, *again) if one.active and one.severity is Severity.CRITICAL)
    return next(stops, None)


def stopped(finding: Finding | None, saved: str = "") -> CriticalFindingError:
    """Give the error of a strict run: of a finding, or of one that only another process has."""
    what = "It is of another process's batch." if finding is None else str(finding)
    return CriticalFindingError(f"Training was stopped by a critical finding (strict=True).{saved}\n{what}", finding)


def rank() -> int | None:
    """Give which of several processes this is, or None where there is one."""
    if not (distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1):
        return None
    return distributed.get_rank()


def strict_argument(strict: Any) -> bool:
    """Give whether critical findings stop the run."""
    if not isinstance(strict, bool):
        raise TypeError(f"Guard needs strict to be True or False, got {strict!r}.")
    return strict


def notify_argument(notify: Any) -> tuple[Callable[[Finding], object], ...]:
    """Give the functions to call with a finding."""
    functions = (notify,) if callable(notify) else () if notify is None else notify
    if not isinstance(functions, list | tuple) or not all(map(callable, functions)):
        raise TypeError(f"Guard needs notify to be a function that takes a finding, or a list of such, got {notify!r}.")
    return tuple(functions)
