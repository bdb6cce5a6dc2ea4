"""What happened to a finding, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from gradguard.detect import Finding, Severity, Symptom


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


def event_to_plain(event: Event) -> dict[str, Any]:
    """Give the event in what JSON and a checkpoint can hold."""
    finding = {field.name: _plain(getattr(event.finding, field.name)) for field in fields(Finding)}
    return {"step": event.step, "finding": finding}


def event_from_plain(plain: Mapping[str, Any]) -> Event:
    """Give the event back; numbers of its evidence that are not finite are strings now.

    Raises:
        ValueError, TypeError, KeyError: it is not what :func:`event_to_plain` gives.
    """
    found = dict(plain["finding"])
    found["symptom"], found["severity"] = Symptom(found["symptom"]), Severity(found["severity"])
    return Event(int(plain["step"]), Finding(**{**found, "where": tuple(found["where"])}))


def _plain(value: Any) -> Any:
    if isinstance(value, Symptom | Severity):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value - value != 0:
        return str(value)  # JSON has no NaN and no Inf
    return value if value is None or isinstance(value, bool | int | float) else str(value)
