"""Where the steps of all optimizers go once they are on the host: history, events, the run record, whoever listens."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, final

import torch

from gradguard.detect import Block, Clips, Finding, Layout
from gradguard.detect.order import in_order
from gradguard.guard.activation_tables import activation_table
from gradguard.guard.time_tables import time_tables
from gradguard.record import (
    Event,
    History,
    Manifest,
    Points,
    Run,
    RunWriter,
    check_folder,
    event_from_plain,
    event_to_plain,
    finding_from_plain,
    finding_to_plain,
    grad_norm_key,
    layout_from_plain,
    layout_to_plain,
    now,
    rows,
    versions,
)

EVENTS = 1000  # most events that are kept
_Table: TypeAlias = tuple[str, tuple[str, ...], Points]  # group, columns, points


class Flush(NamedTuple):
    """What one flush of one optimizer brought.

    Attributes:
        optimizer: its name.
        prefix: what the optimizer's series begin with: empty where there is one optimizer.
        block: the steps.
        events: what was found in them, or ended.
        findings: how all findings of the optimizer stand now.
    """

    optimizer: str
    prefix: str
    block: Block
    events: tuple[Event, ...]
    findings: tuple[Finding, ...] = ()


@final
class Journal:
    """Remembers a run; writes it down where a folder is given; tells its listeners.

    Args:
        points: most points kept of a series.
        folder: of the run record, or None. Opened at the first step, once it is known whether the run is a resumed one.
        device: what the run trains on.

    Raises:
        RecordError: the folder can't be written.
    """

    def __init__(self, points: int, folder: Path | None, device: str) -> None:
        self.history = History(points)
        self.events: list[Event] = []
        self.layouts: dict[str, Layout] = {}  # by optimizer, as at its last flush; and what was found until then
        self.findings: dict[str, list[Finding]] = {}
        self.listeners: list[Callable[[Flush], None]] = []
        self.run, self.folder, self.device = uuid.uuid4().hex, folder, device
        self.created, self.status = now(), "running"
        self.kinds: dict[str, set[tuple[str, str, bool]]] = {}  # what was found at each optimizer's last flush
        self.writer: RunWriter | None = None
        self.opened = folder is None
        if folder is not None:
            check_folder(folder)

    def open(self) -> None:
        """Open the record, if there is to be one and it is not open.

        Raises:
            RecordError: the folder holds another run.
        """
        if self.folder is not None and not self.opened:
            self.writer = RunWriter(
                self.folder,
                run=self.run,
                device=self.device,
                history=self.history,
                events=self.events,
                layouts=self.layouts,
                findings=self.findings,
            )
        self.opened = True

    def take(self, optimizer: str, prefix: str, block: Block, findings: Sequence[Finding]) -> None:
        """Remember the steps of a block and what its detectors say now."""
        step = int(block.steps[-1])
        events = tuple(Event(step, finding) for finding in findings)
        before = self.kinds.get(optimizer, set())
        self.kinds[optimizer] = {event.kind for event in events}
        events = tuple(event for event in events if event.kind not in before)
        self._remember(events)
        self.layouts[optimizer], self.findings[optimizer] = block.layout, list(findings)
        if self.writer is not None:
            self.writer.layout(block.layout)
            self.writer.findings(optimizer, findings)
        for group, columns, points in tables_of(block):
            self.history.extend(prefix + group, columns, points)
            if self.writer is not None:
                self.writer.points(prefix + group, columns, points)
        if self.writer is not None:
            for event in events:
                self.writer.event(event)
            self.writer.flush(sync=bool(events))
        for listener in self.listeners:
            listener(Flush(optimizer, prefix, block, events, tuple(findings)))

    def _remember(self, events: Iterable[Event]) -> None:
        self.events += events
        while len(self.events) > EVENTS:  # a finding that comes and goes: the oldest that a later one supersedes goes
            about = [(event.finding.optimizer, event.finding.symptom) for event in self.events]
            del self.events[next((i for i, key in enumerate(about) if key in about[i + 1 :]), 0)]

    def so_far(self) -> Run:
        """Give the run as a record of it would be read."""
        created = self.created if self.writer is None else self.writer.manifest.created
        manifest = Manifest(self.run, (), self.status, created, now(), versions(), self.device)
        found = in_order(chain(*self.findings.values()))
        return Run(manifest, dict(self.layouts), self.history, tuple(self.events), tuple(found), ())

    def close(self, status: str) -> None:
        """End the record."""
        self.status = status
        if self.writer is not None:
            self.writer.close(status)

    def state_dict(self) -> dict[str, Any]:
        """Give the run's name, its history, its events, and how its parameters and findings stand."""
        return {
            "run": self.run,
            "history": self.history.state_dict(),
            "events": [event_to_plain(event) for event in self.events],
            "layouts": [layout_to_plain(layout) for layout in self.layouts.values()],
            "findings": {name: [finding_to_plain(f) for f in found] for name, found in self.findings.items()},
            "kinds": {name: sorted(map(list, kinds)) for name, kinds in self.kinds.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the journal that gave this state; the record goes on from there with the next step."""
        self.close("rolled back")
        self.status = "running"
        self.run, self.writer, self.opened = str(state["run"]), None, self.folder is None
        self.history.load_state_dict(state["history"])
        self.events = [event_from_plain(event) for event in state["events"]]
        layouts = map(layout_from_plain, state["layouts"])
        self.layouts = {layout.optimizer: layout for layout in layouts}
        self.findings = {name: [finding_from_plain(f) for f in found] for name, found in state["findings"].items()}
        self.kinds = {name: {(s, v, bool(a)) for s, v, a in kinds} for name, kinds in state["kinds"].items()}


def _clip_tables(block: Block, clips: Clips) -> list[_Table]:
    """Give what the clipper did; of each of its parts under the part's name."""
    asked = ~clips.totals.isnan()
    changed = clips.changes > 0
    steps, names = block.steps[asked], ["", *(f"/{part}" for part in clips.parts)]
    tables: list[_Table] = [("grad_norm/clipped", ("",), rows(steps, clips.totals[asked, None]))]
    for i, name in enumerate(names):
        tables.append((f"clip/coefficient{name}", ("",), rows(steps, clips.coefficients[asked, i, None])))
        known = asked & ~clips.thresholds[:, i].isnan()
        if known.any():
            tables.append((f"clip/threshold{name}", ("",), rows(block.steps[known], clips.thresholds[known, i, None])))
    if changed.any():
        tables.append(("clip/reanchored", ("",), rows(block.steps[changed], clips.changes[changed, None])))
    return tables


def _movement_tables(block: Block) -> list[_Table]:
    known = torch.zeros(0, dtype=torch.bool) if block.moved is None else ~block.moved.isnan()
    if block.moved is None or not known.any():
        return []
    return [("update_norm/relative", ("",), rows(block.steps[known], block.moved[known, None]))]


def tables_of(block: Block) -> list[_Table]:
    """Give the block's numbers as the history keeps them: group, columns, points."""
    names = block.layout.names
    keys = tuple(map(grad_norm_key, names))
    kept = ~block.overflow  # an overflow has no gradient to show
    steps, sampled = block.steps[kept], block.samples
    tables: list[_Table] = [
        ("grad_norm/total", ("",), rows(steps, block.totals[kept, None])),
        ("grad_norm", keys, rows(steps, block.grad_norms[kept].float())),
        *_movement_tables(block),
        ("weight_norm", names, rows(sampled.steps, sampled.weight_norms.float())),
        ("update_ratio", names, rows(sampled.steps, sampled.update_ratios.float())),
    ]
    rates = sampled.learning_rates.nan_to_num(-1.0).amax(1) if names else sampled.learning_rates.new_zeros(0)
    if (rates >= 0).any():
        tables.append(("learning_rate", ("",), rows(sampled.steps[rates >= 0], rates[rates >= 0, None])))
    if block.has_loss.any():
        tables.append(("loss", ("",), rows(block.steps[block.has_loss], block.losses[block.has_loss, None])))
    if block.skipped.any():
        tables.append(("skipped", ("",), rows(block.steps[block.skipped], torch.ones(int(block.skipped.sum()), 1))))
    if block.clips is not None:
        tables += _clip_tables(block, block.clips)
    tables += (table for sample in block.in_time for table in time_tables(sample))
    tables += map(activation_table, block.activations)
    return [(group, columns, points) for group, columns, points in tables if columns]
