"""GradGuard finds vanishing and exploding gradients in any PyTorch training loop, and says what to change."""

from gradguard.detect import Finding as Finding
from gradguard.detect import Severity as Severity
from gradguard.detect import Symptom as Symptom
from gradguard.errors import ClosedGuardError as ClosedGuardError
from gradguard.errors import CriticalFindingError as CriticalFindingError
from gradguard.errors import GradGuardError as GradGuardError
from gradguard.errors import GradGuardWarning as GradGuardWarning
from gradguard.errors import RecordError as RecordError
from gradguard.errors import SkipBudgetError as SkipBudgetError
from gradguard.guard import Guard as Guard

__version__ = "0.1.0.dev0"
