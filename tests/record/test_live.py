"""A record is read at any moment while it is being written."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch

from gradguard import Guard
from gradguard.record import read, reader, writer
from tests.guard.loops import batches, mlp, train
from tests.record.records import blocks, feed, journal, same


def train_until(stop: Event, folder: Path) -> None:
    writer.LEAST = 2000  # many compactions
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(model, optimizer, run_dir=folder, every_n_steps=2, max_points=64):
        while not stop.is_set():
            train(model, optimizer, batches(10))


def test_a_run_can_be_read_at_any_moment_while_it_is_written(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    stop = context.Event()
    writing = context.Process(target=train_until, args=(stop, tmp_path / "run"))
    writing.start()
    seen, segments, reads, deadline = 0, set(), 0, time.monotonic() + 120
    while (reads < 50 or len(segments) < 6) and writing.is_alive():
        assert time.monotonic() < deadline
        if not (tmp_path / "run" / "manifest.json").exists():
            assert not reads, "once there is a record, there is one"
            continue
        run = read(tmp_path / "run")
        reads += 1
        segments.add(run.manifest.segments)
        assert all("torn line" in problem for problem in run.problems)
        now = int(run.history["grad_norm/total"].steps[-1]) if "grad_norm/total" in run.history else 0
        assert now >= seen, "steps never go backwards"
        seen = now
    stop.set()
    writing.join()
    assert writing.exitcode == 0
    run = read(tmp_path / "run")
    assert run.history["grad_norm/total"].steps[-1] >= seen > 0
    assert (run.problems, run.manifest.status) == ((), "finished")


def test_segments_that_a_writer_replaces_while_they_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest is read, and before the first segment is opened a compaction takes them all away."""
    made = journal(tmp_path)
    feed(made, blocks(3))
    plain, calls = reader.read_manifest, []

    def compacted(folder: Path) -> object:
        manifest = plain(folder)
        calls.append(manifest.segments)
        if len(calls) in (1, 3) and made.writer is not None:
            made.writer._start_anew()
        return manifest

    monkeypatch.setattr(reader, "read_manifest", compacted)
    run = read(tmp_path)
    same(run.history, made.history)
    assert (run.problems, len(set(calls))) == ((), 2)
    made.close("finished")
