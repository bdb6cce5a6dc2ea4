"""What GradGuard raises and warns with, beside plain ``ValueError`` and ``TypeError`` for a mistake in the call."""

from typing import Any


class GradGuardError(Exception):
    """Base class of the errors that are GradGuard's own."""


class ClosedGuardError(GradGuardError, ValueError):
    """A guard was used after ``close()``: it hangs on no optimizer any more and can measure nothing."""


class RecordError(GradGuardError, ValueError):
    """A run's folder that can't be written or read, or that holds another run."""


class CriticalFindingError(GradGuardError, RuntimeError):
    """A critical finding in a strict run: training was stopped.

    Attributes:
        finding: the :class:`gradguard.Finding`; None where it is of another process's batch.
    """

    def __init__(self, message: str = "", finding: Any = None) -> None:
        super().__init__(message)
        self.finding = finding


class MissingPackageError(GradGuardError, ImportError):
    """Something was asked for that needs a package which does not come with GradGuard and is not installed."""


class SkipBudgetError(GradGuardError, RuntimeError):
    """More steps in a row had gradients that are not finite than ``Skip(budget)`` puts up with."""


class GradGuardWarning(UserWarning):
    """A request that is not carried out, or a condition that weakens what is reported. Issued once each."""
