"""What happened to a finding, and when."""

from __future__ import annotations

from typing import NamedTuple

from gradguard.detect import Finding


class Event(NamedTuple):
    """A finding that was raised, changed its severity, or ended.

    Attributes:
        step: optimizer step at which it was noticed, with up to a flush's delay.
        finding: as it stood then; ``finding.active`` says whether it was raised or ended.
    """

    step: int
    finding: Finding

    @property
    def kind(self) -> tuple[str, str, bool]:
        """Symptom, severity and whether it is on: what makes an event a new one."""
        return self.finding.symptom.value, self.finding.severity.value, self.finding.active
