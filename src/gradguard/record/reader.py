"""Reads a run's folder back, also while it is being written and where it is torn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from gradguard.detect import Finding, Layout
from gradguard.detect.order import in_order
from gradguard.errors import RecordError
from gradguard.record.event import Event
from gradguard.record.history import History
from gradguard.record.lines import content_of, points_of
from gradguard.record.manifest import NAME, Manifest, read_manifest
from gradguard.record.plain import event_from_plain, finding_from_plain, layout_from_plain

if TYPE_CHECKING:
    import pandas

POINTS = 1 << 16  # most points of a series that are kept
LONGEST = 1 << 26  # bytes of a line: what is longer was never written by us
BUFFER = 1 << 18
DAMAGED = 10_000  # damaged lines after which a segment is given up: gigabytes of anything else take no hours
# What a line can cause that has the right checksum and was not written by us.
_NOT_OURS = (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RuntimeError)


@dataclass(frozen=True)
class Run:
    """What a record tells.

    Attributes:
        manifest: run, status, versions, device, times.
        layouts: the parameters of each optimizer, by its name.
        history: series by name, as ``guard.history`` gives them.
        events: findings that were raised or ended, in the order in which that was noticed.
        findings: all findings as they stood at the last flush, the worst first.
        problems: what could not be read, in words; empty for an undamaged record.
    """

    manifest: Manifest
    layouts: dict[str, Layout]
    history: History
    events: tuple[Event, ...]
    findings: tuple[Finding, ...]
    problems: tuple[str, ...]

    def to_frame(self) -> pandas.DataFrame:
        """Give every point as a row: series, step, last, low, high. Needs pandas.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "to_frame needs pandas: pip install pandas. Without it, run.history has the series."
            ) from error

        columns = ["series", "step", "last", "low", "high"]
        series = [
            pandas.DataFrame(dict(zip(columns, [key, *(field.tolist() for field in points)], strict=True)))
            for key, points in self.history.items()
        ]
        return pandas.concat(series, ignore_index=True) if series else pandas.DataFrame(columns=columns)


def read(path: str | Path, *, max_points: int = POINTS) -> Run:
    """Read the record of a run.

    A killed run, a torn or damaged line, a missing segment: what is readable is given, and ``problems`` says what is
    not. A run that is still going on can be read at any moment.

    Args:
        path: the folder, or its manifest.
        max_points: most points kept of a series, >= 2; neighbours are merged beyond that.

    Returns:
        The run, all tensors on the CPU.

    Raises:
        RecordError: there is no record, its manifest is damaged, or a newer GradGuard wrote it.

    Host sync: none. Mutates: nothing.
    """
    folder = Path(path)
    folder = folder.parent if folder.is_file() else folder
    with ExitStack() as files:
        manifest, segments = _opened(folder, files)
        reading = _Reading(History(max_points))
        for name, file in segments.items():
            try:
                if isinstance(file, OSError):
                    raise file
                reading.segment(name, file, is_last=name == manifest.segments[-1])
            except OSError as error:
                reading.problems.append(f"{name} can't be read: {error.strerror or error}")
    found = in_order(chain(*reading.findings.values()))
    events, problems = tuple(reading.events), tuple(reading.problems)
    return Run(manifest, reading.layouts, reading.history, events, tuple(found), problems)


def find_record(path: str | Path) -> Path:
    """Give the folder of the one record that a folder is or has in it, at any depth; of a record's manifest, its own.

    Raises:
        RecordError: there is none, or more than one.
    """
    folder = Path(path)
    if folder.is_file() and folder.name == NAME:
        return folder.parent
    if (folder / NAME).exists():
        return folder
    found = sorted(manifest.parent for manifest in folder.rglob(NAME) if any(manifest.parent.glob("segment-*.jsonl")))
    if not found:
        raise RecordError(f"There is no run record at {folder}, nor in a folder below it: it needs a {NAME}.")
    if len(found) > 1:
        some = ", ".join(map(str, found[:5])) + (" ..." if len(found) > 5 else "")
        raise RecordError(f"There are {len(found)} run records below {folder}. Name one of them: {some}.")
    return found[0]


def _opened(folder: Path, files: ExitStack) -> tuple[Manifest, dict[str, BinaryIO | OSError]]:
    """Open all segments before the first one is read: what a writer replaces meanwhile stays readable."""
    manifest = read_manifest(folder)
    while True:
        segments: dict[str, BinaryIO | OSError] = {}
        for name in manifest.segments:
            try:
                segments[name] = files.enter_context((folder / name).open("rb", buffering=BUFFER))
            except OSError as error:
                segments[name] = error
        before, manifest = manifest, read_manifest(folder)
        if manifest.segments == before.segments:
            return manifest, segments


class _Reading:
    """What has been read so far."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.layouts: dict[str, Layout] = {}
        self.events: list[Event] = []
        self.findings: dict[str, list[Finding]] = {}
        self.problems: list[str] = []
        self.columns: dict[int, tuple[str, tuple[str, ...]]] = {}
        self.last_step: dict[str, int] = {}

    def segment(self, name: str, file: BinaryIO, *, is_last: bool) -> None:
        self.columns = {}
        bad: list[int] = []
        for number, text, is_whole in _lines(file):
            if not is_whole and is_last:
                self.problems.append(f"{name} ends in a torn line, as after a kill: that line is left out")
                continue
            try:
                self._take(content_of(text))
            except _NOT_OURS:
                bad.append(number)
            if len(bad) == DAMAGED:
                self.problems.append(f"{name} is given up after line {number}: the rest is left out")
                break
        if bad:
            some = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
            self.problems.append(f"{name}: {len(bad)} damaged lines are left out (line {some})")

    def _take(self, content: dict[str, Any]) -> None:
        if "points" in content:
            group, names = self.columns[content["columns"]]
            if group != content["points"]:
                raise ValueError("these columns are another group's")
            new = points_of(content, len(names))
            if len(new.steps):
                if int(new.steps[0]) <= self.last_step.get(group, 0):
                    raise ValueError("steps that were there before")
                self.last_step[group] = int(new.steps[-1])
                self.history.extend(group, names, new)
        elif "of" in content:
            self.columns[content["columns"]] = (content["of"], tuple(map(str, content["names"])))
        elif "event" in content:
            self.events.append(event_from_plain(content["event"]))
        elif "findings" in content:
            self.findings[content["optimizer"]] = list(map(finding_from_plain, content["findings"]))
        elif "layout" in content:
            layout = layout_from_plain(content["layout"])
            self.layouts[layout.optimizer] = layout
        # what else there may be, a later minor version wrote


def _lines(file: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Number, text and whether it is whole, of each line; one that is absurdly long is not held in memory."""
    number = 0
    while text := file.readline(LONGEST):
        number += 1
        is_whole = is_ended = text.endswith(b"\n")
        while not is_ended and (rest := file.readline(BUFFER)):
            is_ended = rest.endswith(b"\n")
            text = b""
        yield number, text if is_whole else b"", is_ended
