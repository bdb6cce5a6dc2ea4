"""A compaction that is broken off at any moment leaves a record that reads, and a run that goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from gradguard.record import read, writer
from tests.record.records import OF, blocks, copy_of, feed, finding, journal, same


class Killed(BaseException):
    """Nothing that the code can catch by name."""


def watch(patch: pytest.MonkeyPatch, *, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Have every call that changes the file system announced."""

    def watched(plain: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            before()
            result = plain(*args, **kwargs)
            after()
            return result

        return call

    for owner, name in ((Path, "open"), (Path, "replace"), (Path, "unlink"), (os, "fsync")):
        patch.setattr(owner, name, watched(getattr(owner, name)))


def test_a_kill_after_any_call_of_a_compaction_leaves_a_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, (first, second), numbers = journal(tmp_path / "run"), blocks(2), count()
    feed(made, [first], [finding(1, 10)])
    monkeypatch.setattr(writer, "LEAST", 1)
    with monkeypatch.context() as patch:
        copies: list[Path] = []
        watch(
            patch,
            before=lambda: None,
            after=lambda: copies.append(copy_of(tmp_path / "run", tmp_path / str(next(numbers)))),
        )
        feed(made, [second], [finding(1, 20)])
    assert len(copies) >= 8
    for copy in copies:
        run = read(copy)
        same(run.history, made.history)
        assert (run.problems, run.layouts, len(run.events)) == ((), {"optimizer": OF}, 1)
        assert run.findings == (finding(1, 20),)
        resumed = journal(None)  # and the run that goes on from there leaves nothing behind
        resumed.load_state_dict(made.state_dict())
        resumed.folder, resumed.opened = copy, False
        resumed.open()
        run = read(copy)
        assert {path.name for path in copy.iterdir()} == {"manifest.json", *run.manifest.segments}
        same(run.history, made.history)
        assert (run.problems, run.layouts, len(run.events)) == ((), {"optimizer": OF}, 1)
        assert run.findings == (finding(1, 20),), "before its first flush"
        resumed.close("finished")
    made.close("finished")


@pytest.mark.parametrize("call", range(8))
def test_a_ctrl_c_inside_a_compaction_leaves_a_record_that_goes_on(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, (first, second, third) = journal(tmp_path), blocks(3)
    feed(made, [first])
    monkeypatch.setattr(writer, "LEAST", 1)
    with monkeypatch.context() as patch:
        numbers = count()

        def kill() -> None:
            if next(numbers) == call:
                raise Killed

        watch(patch, before=kill, after=lambda: None)
        with suppress(Killed):
            feed(made, [second])
        assert next(numbers) > call, "fewer calls than are tried"
    run = read(tmp_path)
    same(run.history, made.history)
    feed(made, [third])
    same(read(tmp_path).history, made.history)
    assert read(tmp_path).problems == run.problems == ()
    made.close("finished")
    assert read(tmp_path).manifest.status == "finished"


def test_a_ctrl_c_that_tears_a_line_costs_nothing_once_the_run_goes_on(tmp_path: Path) -> None:
    made, (first, second, third) = journal(tmp_path), blocks(3)
    feed(made, [first])
    assert made.writer is not None

    class Torn:
        def __init__(self, file: Any) -> None:
            self.file = file

        def write(self, text: bytes) -> None:
            self.file.write(text[: len(text) // 2])
            self.file.flush()
            raise Killed

        def close(self) -> None:
            self.file.close()

    made.writer.file = Torn(made.writer.file)  # type: ignore[assignment]
    with pytest.raises(Killed):
        feed(made, [second])
    assert any("torn line" in problem for problem in read(tmp_path).problems)
    feed(made, [third])
    same(read(tmp_path).history, made.history)
    assert read(tmp_path).problems == ()
    made.close("finished")
