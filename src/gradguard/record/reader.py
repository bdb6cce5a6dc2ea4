"""Reads a run's folder back, also while it is being written and where it is torn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradguard.detect import Finding, Layout, Role
from gradguard.record.event import Event, event_from_plain
from gradguard.record.history import History
from gradguard.record.lines import points_of
from gradguard.record.manifest import Manifest, read_manifest

if TYPE_CHECKING:
    import pandas

POINTS = 1 << 16  # most points of a series that are kept
LONGEST = 1 << 26  # bytes of a line: what is longer was never written by us


@dataclass(frozen=True)
class Run:
    """What a record tells.

    Attributes:
        manifest: run, status, versions, device, times.
        layouts: the parameters of each optimizer, by its name.
        history: series by name, as ``guard.history`` gives them.
        events: findings that were raised or ended, in the order in which that was noticed.
        problems: what could not be read, in words; empty for an undamaged record.
    """

    manifest: Manifest
    layouts: dict[str, Layout]
    history: History
    events: tuple[Event, ...]
    problems: tuple[str, ...]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Each finding as it stood when it last changed, the worst first."""
        last = {(e.finding.optimizer, e.finding.symptom): e.finding for e in self.events}
        return tuple(sorted(last.values(), key=lambda finding: (-finding.severity.rank, finding.first_step)))

    def to_frame(self) -> pandas.DataFrame:
        """Give every point as a row: series, step, last, low, high. Needs pandas.

        Raises:
            ImportError: pandas is not installed.
        """
        import pandas

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
    for _ in range(10):  # a writer may replace the segments in between
        manifest = read_manifest(folder)
        run = _read(folder, manifest, max_points)
        if run.manifest.segments == read_manifest(folder).segments:
            break
    return run


def _read(folder: Path, manifest: Manifest, max_points: int) -> Run:
    reading = _Reading(History(max_points))
    for name in manifest.segments:
        reading.columns = {}
        try:
            reading.segment(folder / name, is_last=name == manifest.segments[-1])
        except OSError as error:
            reading.problems.append(f"{name} can't be read: {error.strerror or error}")
    return Run(manifest, reading.layouts, reading.history, tuple(reading.events), tuple(reading.problems))


class _Reading:
    """What has been read so far."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.layouts: dict[str, Layout] = {}
        self.events: list[Event] = []
        self.problems: list[str] = []
        self.columns: dict[int, tuple[str, tuple[str, ...]]] = {}
        self.last_step: dict[str, int] = {}

    def segment(self, path: Path, *, is_last: bool) -> None:
        bad: list[int] = []
        for number, text, is_whole in _lines(path):
            if not is_whole and is_last:
                self.problems.append(f"{path.name} ends in a torn line, as after a kill: that line is left out")
                continue
            try:
                self._take(json.loads(text))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                bad.append(number)
        if bad:
            some = ", ".join(map(str, bad[:5])) + (" ..." if len(bad) > 5 else "")
            self.problems.append(f"{path.name}: {len(bad)} damaged lines are left out (line {some})")

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
        elif "optimizer" in content:
            self.layouts[content["optimizer"]] = _layout(content)
        # what else there may be, a later minor version wrote


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    """Number, text and whether it is whole, of each line; one that is absurdly long is not held in memory."""
    with path.open("rb") as file:
        number = 0
        while text := file.readline(LONGEST):
            number += 1
            whole = text.endswith(b"\n")
            yield number, text if whole else b"", whole
            while not whole and (rest := file.readline(LONGEST)):
                whole = rest.endswith(b"\n")


def _layout(content: dict[str, Any]) -> Layout:
    return Layout(
        str(content["optimizer"]),
        tuple(map(str, content["names"])),
        tuple(map(str, content["layers"])),
        tuple(map(int, content["sizes"])),
        tuple(map(Role, content["roles"])),
        float(content["norm_type"]),
    )
