"""Findings, events and layouts in what JSON and a checkpoint can hold, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from gradguard.detect import Finding, Layout, Role, Severity, Symptom
from gradguard.record.event import Event

_NOT_FINITE = {str(value): value for value in (math.nan, math.inf, -math.inf)}  # JSON has no word for these


def event_to_plain(event: Event) -> dict[str, Any]:
    """Give an event as plain containers, strings and numbers."""
    return {"step": event.step, "finding": finding_to_plain(event.finding)}


def event_from_plain(plain: Mapping[str, Any]) -> Event:
    """Give it back.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is not what :func:`event_to_plain` gives.
    """
    return Event(int(plain["step"]), finding_from_plain(plain["finding"]))


def finding_to_plain(finding: Finding) -> dict[str, Any]:
    """Give a finding as plain containers, strings and numbers; what else its evidence holds becomes a string."""
    return {field.name: _plain(getattr(finding, field.name)) for field in fields(Finding)}


def finding_from_plain(plain: Mapping[str, Any]) -> Finding:
    """Give it back.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is not what :func:`finding_to_plain` gives.
    """
    return Finding(
        Symptom(plain["symptom"]),
        Severity(plain["severity"]),
        tuple(map(str, plain["where"])),
        str(plain["optimizer"]),
        int(plain["first_step"]),
        int(plain["last_step"]),
        bool(plain["active"]),
        _unplain(dict(plain["evidence"])),
        str(plain["explanation"]),
    )


def layout_to_plain(layout: Layout) -> dict[str, Any]:
    """Give a layout as plain containers, strings and numbers."""
    return {field.name: _plain(getattr(layout, field.name)) for field in fields(Layout)}


def layout_from_plain(plain: Mapping[str, Any]) -> Layout:
    """Give it back.

    Raises:
        ValueError, TypeError, KeyError, OverflowError: it is not what :func:`layout_to_plain` gives.
    """
    layout = Layout(
        str(plain["optimizer"]),
        tuple(map(str, plain["names"])),
        tuple(map(str, plain["layers"])),
        tuple(map(int, plain["sizes"])),
        tuple(map(Role, plain["roles"])),
        float(plain["norm_type"]),
        float(plain["resolution"]),
    )
    if not len(layout.names) == len(layout.layers) == len(layout.sizes) == len(layout.roles):
        raise ValueError("a layout needs as many layers, sizes and roles as names")
    return layout


def _plain(value: Any) -> Any:
    if isinstance(value, Symptom | Severity | Role):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):  # a NumPy float is one, but weights_only loads none
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return value if value is None or isinstance(value, bool) else str(value)


def _unplain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _unplain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unplain(item) for item in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
