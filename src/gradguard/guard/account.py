"""What a guard says of the run so far."""

from __future__ import annotations

from abc import ABC, abstractmethod

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
