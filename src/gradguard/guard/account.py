"""What a guard says of the run so far."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from gradguard.detect import Finding
from gradguard.guard.journal import Journal
from gradguard.guard.summary import summary
from gradguard.guard.tracks import Tracks
from gradguard.record import Event, History, HostReader


class AbstractAccount(ABC):
    """The part of a guard that is asked: nothing of it changes what the guard does."""

    _tracks: Tracks
    _journal: Journal
    _reader: HostReader

    def diagnose(self) -> list[Finding]:
        """Say what has been found so far: the worst first, of equally bad ones the cause before its effects.

        An empty list is good news. Host sync: one per device.
        """
        self._tracks.flush(together=False)
        return self._tracks.findings()

    def summary(self) -> str:
        """Tell the run so far: norms, updates, losses, findings, and what to try first. Host sync: one per device."""
        return summary(list(self._tracks), self.history, self._tracks.findings())

    def report(self, path: str | Path) -> Path:
        """Write the run so far as one page that opens offline: verdict, charts, findings, and what to try first.

        ``gradguard report FOLDER`` does the same from a run record, and compares two.

        Args:
            path: the file, such as ``report.html``; the folders above it are made.

        Returns:
            Its path.

        Raises:
            OSError: it can't be written.
            MissingPackageError: jinja2, which comes with torch, is not installed.

        Host sync: one per device. Mutates: nothing, but that the steps so far are flushed.
        """
        from gradguard.report import write_page  # a template is loaded for nobody who asks for none

        self._tracks.flush(together=False)
        name = ", ".join(sorted({type(model).__name__ for track in self._tracks for model in track.models.values()}))
        return write_page([self._journal.so_far()], path, [name])

    @property
    def history(self) -> History:
        """What was measured so far: series by name (the README lists them), of bounded size. Host sync: as a flush.

        At every step there are ``grad_norm/total`` and, beside it, ``update_norm/relative``: by how much the step moved
        a small fixed sample of the weights, relative to their norm. It rises before the loss does where steps become
        too large, under Adam too, whose steps do not grow with the gradient.
        """
        self._tracks.flush(together=False)
        return self._journal.history

    @property
    def host_reads(self) -> int:
        """How many transfers from a device to the host this guard has made."""
        return self._reader.count

    @property
    def events(self) -> tuple[Event, ...]:
        """Findings that were raised or ended, as they were noticed. Host sync: none."""
        return tuple(self._journal.events)

    @property
    def steps(self) -> dict[str, int]:
        """How many steps each optimizer has made. Host sync: none."""
        return {track.name: track.step for track in self._tracks}

    @abstractmethod
    def close(self, status: str = "finished", *, together: bool = True) -> None:
        """Take every hook off; end the record with ``status``."""
