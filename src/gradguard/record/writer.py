"""Writes a run's folder: a snapshot of the history so far, then lines of what came since. It stays small."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO, final

from gradguard.detect import Finding, Layout
from gradguard.errors import GradGuardWarning, RecordError
from gradguard.record.event import Event
from gradguard.record.history import History, Points, condensed
from gradguard.record.lines import columns_line, event_line, findings_line, layout_line, points_line
from gradguard.record.manifest import NAME, SEGMENT, Manifest, now, read_manifest, replace_file, versions

LEAST = 4 << 20  # bytes of lines before a new snapshot takes their place


@final
class RunWriter:
    """Keeps the record of one run in a folder of its own.

    The folder holds a manifest and the segments that it names: a snapshot (all points of the history, all events, the
    layouts and findings as they stand), and the lines written since. Once these are twice as long as the snapshot, a
    new snapshot replaces both: it is written beside them, synced, renamed, and only then named in the manifest. A kill
    at any moment loses what was not flushed and at most one torn line. What can't be written (a full disk) ends the
    record with a warning, not the run.

    Args:
        folder: made where it is missing; may hold an earlier part of the same run, which what is known supersedes.
        run: identifies the run.
        device: what it trains on.
        history: what is known of the run. The caller keeps this and the next three up to date, before each note.
        events: its events.
        layouts: the parameters of each optimizer, by its name.
        findings: the findings of each optimizer as they stand.

    Raises:
        RecordError: the folder can't be written, or holds another run.
    """

    def __init__(
        self,
        folder: Path,
        *,
        run: str,
        device: str,
        history: History,
        events: Sequence[Event],
        layouts: Mapping[str, Layout],
        findings: Mapping[str, Sequence[Finding]],
    ) -> None:
        self.folder, self.history, self.events = Path(folder), history, events
        self.known_layouts, self.known_findings = layouts, findings
        self.noted: dict[tuple[str, str], bytes] = {}  # the last line of each layout and of each optimizer's findings
        self.columns: dict[str, tuple[int, tuple[str, ...]]] = {}  # of each group in the open segment: number and names
        self.numbered = 0
        self.file: BinaryIO | None = None
        self.pending: list[bytes] = []
        self.broken_off = False
        self.manifest = Manifest(run, (), "running", now(), "", versions(), device)
        check_folder(self.folder)
        if (self.folder / NAME).exists():
            before = read_manifest(self.folder)
            if before.run != run:
                raise RecordError(
                    f"{self.folder} holds the record of another run, which is never overwritten. Choose another "
                    "run_dir, or resume that run: fit(ckpt_path=...) in a Trainer, load_state_dict() of its guard else."
                )
            self.manifest = replace(self.manifest, created=before.created)
        try:
            self._start_anew()
        except OSError as error:
            self._let_go()
            raise RecordError(
                f"The run record can't be written to {self.folder} ({error}). Choose another run_dir."
            ) from error

    def layout(self, layout: Layout) -> None:
        """Note the parameters of an optimizer, where they are new or have changed."""
        self._note_news("layout", layout.optimizer, layout_line(layout))

    def findings(self, optimizer: str, findings: Sequence[Finding]) -> None:
        """Note the findings of an optimizer, where they have changed."""
        self._note_news("findings", optimizer, findings_line(optimizer, findings))

    def _note_news(self, what: str, optimizer: str, text: bytes) -> None:
        if self.noted.get((what, optimizer)) != text:
            self.noted[what, optimizer] = text
            self.pending.append(text)

    def points(self, group: str, names: tuple[str, ...], new: Points) -> None:
        """Note points [R, N] of a group, as finely as the history keeps them by now."""
        if not len(new.steps):
            return
        number, known = self.columns.get(group, (0, None))
        if known != names:
            self.numbered = number = self.numbered + 1
            self.columns[group] = (number, names)
            self.pending.append(columns_line(group, number, names))
        self.pending.append(points_line(group, number, condensed(new, self.history.width(group))))

    def event(self, event: Event) -> None:
        """Note an event."""
        self.pending.append(event_line(event))

    def flush(self, *, sync: bool = False) -> None:
        """Write what was noted. ``sync``: down to the disk."""
        lines, self.pending = b"".join(self.pending), []
        if self.file is None or not lines:
            return
        try:
            torn, self.broken_off = self.broken_off, True  # a Ctrl-C in here may leave half a line
            if not torn:
                self.file.write(lines)
                self.file.flush()
                if sync:
                    os.fsync(self.file.fileno())
                self.size += len(lines)
            if torn or self.size > max(LEAST, 2 * self.snapshot):
                self._start_anew()
            self.broken_off = False
        except OSError as error:
            self._give_up(error)

    def close(self, status: str = "finished") -> None:
        """Flush, and say how the run ended."""
        self.flush()
        if self.file is None:
            return
        try:
            os.fsync(self.file.fileno())
            self.file.close()
            self.file = None
            self.manifest = replace(self.manifest, status=status)
            self.manifest.write(self.folder)
        except OSError as error:
            self._give_up(error)

    def _start_anew(self) -> None:
        """Put a snapshot and an empty segment in the place of everything before."""
        names = [path.name for path in self.folder.iterdir()]
        old = {name: int(at[1]) for name in names if (at := SEGMENT.fullmatch(name.removesuffix(".tmp")))}
        last = max(old.values(), default=0)
        snapshot, fresh = (f"segment-{last + i:06d}.jsonl" for i in (1, 2))
        self.snapshot = replace_file(self.folder / snapshot, self._everything())
        before, self.file = self.file, (self.folder / fresh).open("wb")
        if before is not None:
            before.close()
        self.size, self.columns = 0, {}
        self.manifest = replace(self.manifest, segments=(snapshot, fresh))
        self.manifest.write(self.folder)
        for name in old:
            with suppress(OSError):  # somebody may be reading it, on Windows: it goes next time
                (self.folder / name).unlink(missing_ok=True)

    def _everything(self) -> Iterator[bytes]:
        yield from map(layout_line, self.known_layouts.values())
        yield from map(event_line, self.events)
        for optimizer, findings in self.known_findings.items():
            yield findings_line(optimizer, findings)
        for number, (group, names, points) in enumerate(self.history.tables(), start=1):
            yield columns_line(group, number, names)
            yield points_line(group, number, points)

    def _give_up(self, error: OSError) -> None:
        self._let_go()
        warnings.warn(
            f"The run record at {self.folder} ends here: it can't be written any more ({error}). Training goes on.",
            GradGuardWarning,
            stacklevel=2,
        )

    def _let_go(self) -> None:
        if self.file is not None:
            with suppress(OSError):
                self.file.close()
        self.file = None


def check_folder(folder: Path) -> None:
    """Make the folder of a record to be, and see that it can be written to.

    Raises:
        RecordError: it can't.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"no permission to write to {folder}")
    except OSError as error:
        raise RecordError(f"The run record can't be written to {folder} ({error}). Choose another run_dir.") from error
