"""Whatever lies in the folder: the part that is readable, and words for what is not; or a clear error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.errors import RecordError
from gradguard.record import Points, Run, read
from gradguard.record.lines import columns_line, line, points_line
from tests.record.records import OF, blocks, feed, finding, journal, same


def record(folder: Path, flushes: int = 4) -> Path:
    made, those = journal(folder), blocks(flushes)
    feed(made, those[:1], [finding(1, 10)])
    feed(made, those[1:], [finding(1, 20)])
    made.close("finished")
    return folder


def segment(folder: Path) -> Path:
    """The segment with the lines; the other one is the empty snapshot that the run began with."""
    return folder / read(folder).manifest.segments[-1]


def steps(run: Run) -> list[int]:
    return run.history["grad_norm/total"].steps.tolist()


def test_no_record(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "missing", tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RecordError, match=r"There is no run record at .*needs a manifest\.json"):
            read(place)
    with pytest.raises(RecordError, match=r"There is no run record"):
        read(str(tmp_path))


GOOD = json.loads(
    '{"run": "a", "segments": [], "status": "running", "created": "", "updated": "", "versions": {}, "device": "cpu",'
    '"format": 1}'
)


OUTSIDE = [("../", ""), ("", "\0"), ("", "\n"), ("a/", ""), ("", "/")]


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "{}", "5", "\xff\xfe", "[" * 100_000, " " * (1 << 21) + json.dumps(GOOD)),
        *(json.dumps({**GOOD, "format": value}) for value in ("1", 0, None)),
        *(json.dumps({**GOOD, "segments": value}) for value in ("segment-000001.jsonl", ["/etc/passwd"], [".."], [1])),
        *(json.dumps({**GOOD, "segments": [f"{at}segment-000001.jsonl{end}"]}) for at, end in OUTSIDE),
        *(json.dumps({**GOOD, **change}) for change in ({"run": 1}, {"versions": {"torch": 2}}, {"device": None})),
        *(json.dumps({k: v for k, v in GOOD.items() if k != name}) for name in GOOD),
    ],
    ids=lambda text: text[:60],
)
def test_a_damaged_manifest_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    assert read(tmp_path).problems == ()
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match=r"The manifest .*manifest\.json is damaged"):
        read(tmp_path)


def test_a_newer_format_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"format": 2, "who": "knows"}')
    with pytest.raises(RecordError, match=r"has format 2, this GradGuard reads up to 1\. Upgrade gradguard"):
        read(tmp_path)


def test_a_manifest_that_is_a_folder_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(RecordError, match=r"can't be read .*Is a directory"):
        read(tmp_path)


def test_a_missing_segment_leaves_the_others(tmp_path: Path) -> None:
    folder = record(tmp_path)
    segment(folder).unlink()
    run = read(folder)
    assert run.problems == ("segment-000002.jsonl can't be read: No such file or directory",)
    assert (len(run.history), run.manifest.status) == (0, "finished")


@pytest.mark.parametrize("cut", [1, 2, 30, 4000])
def test_a_torn_last_line_is_left_out(tmp_path: Path, cut: int) -> None:
    folder = record(tmp_path)
    path, whole = segment(folder), read(folder)
    text = path.read_bytes()
    path.write_bytes(text[:-cut])
    run = read(folder)
    assert run.problems == (f"{path.name} ends in a torn line, as after a kill: that line is left out",)
    assert steps(run) == steps(whole)[: len(steps(run))]
    assert len(steps(run)) >= 10
    assert len(run.history["loss"].steps) < 40
    assert (run.layouts, run.events) == (whole.layouts, whole.events)


def test_a_line_that_is_torn_before_the_last_segment_is_damaged(tmp_path: Path) -> None:
    folder = record(tmp_path)
    first, last = read(folder).manifest.segments
    (folder / first).write_bytes((folder / last).read_bytes()[:-9])
    assert read(folder).problems[0] == f"{first}: 1 damaged lines are left out (line 34)"


def test_lines_that_are_damaged_in_the_middle_are_numbered(tmp_path: Path) -> None:
    folder = record(tmp_path)
    path = segment(folder)
    lines = path.read_bytes().splitlines(keepends=True)
    at = next(i for i, text in enumerate(lines) if b'"points":"loss"' in text)
    later = next(i for i, text in enumerate(lines) if b'"points":"grad_norm/total"' in text and i > at)
    lines[at] = lines[at][:40] + b"\n"
    lines[later] = b"\xff\x00\n"
    path.write_bytes(b"".join(lines))
    run = read(folder)
    assert run.problems == (f"{path.name}: 2 damaged lines are left out (line {at + 1}, {later + 1})",)
    assert run.history["loss"].steps.tolist() == list(range(11, 41))
    assert steps(run) == [*range(1, 11), *range(21, 41)]
    assert run.history["grad_norm/layer0.weight"].steps.tolist() == list(range(1, 41))


@pytest.mark.parametrize(
    "text",
    [
        line({"points": "x", "columns": 9, "steps": "q", "last": "f"}),
        columns_line("x", 1, []) + points_line("x", 1, Points(torch.tensor([1]), *(torch.zeros(1, 0),) * 3)),
        columns_line("x", 1, ["a"]) + points_line("y", 1, Points(torch.tensor([1]), *(torch.zeros(1, 1),) * 3)),
        columns_line("grad_norm", 1, OF.names)
        + points_line("grad_norm", 1, Points(torch.tensor([3]), *(torch.zeros(1, 6),) * 3)),
        line({"event": {"step": "x", "finding": {}}}),
        line({"layout": [1]}),
        line({"findings": 3, "optimizer": "a"}),
        line({"of": "x", "columns": [1], "names": ["a"]}),
    ],
)
def test_lines_that_we_never_write_are_no_trouble(tmp_path: Path, text: bytes) -> None:
    folder = record(tmp_path)
    whole = read(folder)
    with segment(folder).open("ab") as file:
        file.write(text)
    run = read(folder)
    (problem,) = run.problems
    assert "1 damaged lines are left out" in problem
    same(run.history, whole.history)


def test_what_a_later_minor_version_may_add_is_passed_over(tmp_path: Path) -> None:
    folder = record(tmp_path)
    with segment(folder).open("ab") as file:
        file.write(line({"weather": "fine"}))
    assert read(folder).problems == ()


SOURCE: list[Path] = []


def source() -> Path:
    if not SOURCE:
        SOURCE.append(record(Path(tempfile.mkdtemp())))
    return SOURCE[0]


@given(data=st.data())
def test_bytes_that_flip_or_go_are_never_taken_for_numbers(data: st.DataObject) -> None:
    """Whatever happens to a segment: what is read is what was written, less some rows, and it is said."""
    path, whole = segment(source()), read(source())
    text = bytearray(path.read_bytes())
    positions = st.integers(0, len(text) - 1)
    for at in data.draw(st.lists(positions, min_size=1, max_size=5, unique=True)):
        text[at] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        start = data.draw(positions)
        del text[start : start + data.draw(st.integers(1, 3000))]
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source(), folder, dirs_exist_ok=True)
        (Path(folder) / path.name).write_bytes(text)
        run = read(folder)
    assert run.problems
    assert all(event in whole.events for event in run.events)
    for key, points in run.history.items():
        rows = torch.isin(whole.history[key].steps, points.steps)
        assert torch.equal(whole.history[key].steps[rows], points.steps)
        assert torch.equal(whole.history[key].last[rows], points.last)


@given(data=st.data())
def test_a_manifest_whose_bytes_flip_is_an_error_or_loses_nothing_silently(data: st.DataObject) -> None:
    text = bytearray((source() / "manifest.json").read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(text) - 1), min_size=1, max_size=3, unique=True)):
        text[at] ^= data.draw(st.integers(1, 255))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source(), folder, dirs_exist_ok=True)
        (Path(folder) / "manifest.json").write_bytes(text)
        try:
            run = read(folder)
        except RecordError:
            return
    if not run.problems:
        same(run.history, read(source()).history)


def test_many_points_are_folded_and_every_extreme_is_kept(tmp_path: Path) -> None:
    made, those = journal(tmp_path, points=1 << 20), blocks(200)
    feed(made, those)
    made.close("finished")
    values = torch.cat([one.totals for one in those])
    assert torch.equal(read(tmp_path).history["grad_norm/total"].last, values)
    for most in (2, 7, 100):
        points, start = read(tmp_path, max_points=most).history["grad_norm/total"], 0
        assert most // 2 <= len(points.steps) <= most + 1
        for stop, last, low, high in zip(*(field.tolist() for field in points), strict=True):
            span = values[start:stop]
            assert (last, low, high) == (span[-1], span.min(), span.max())
            start = stop
        assert start == 2000
    with pytest.raises(ValueError, match="points >= 2, got 1"):
        read(tmp_path, max_points=1)


def test_the_frame_is_the_history(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    run = read(record(tmp_path))
    frame = run.to_frame()
    assert list(frame.columns) == ["series", "step", "last", "low", "high"]
    assert frame["series"].unique().tolist() == list(run.history)
    assert len(frame) == sum(len(points.steps) for points in run.history.values())
    for key, points in run.history.items():
        part = frame[frame["series"] == key]
        for name, values in zip(("step", "last", "low", "high"), points, strict=True):
            assert part[name].tolist() == values.tolist()
    feed(made := journal(tmp_path / "empty"), [])
    made.close("finished")
    assert read(tmp_path / "empty").to_frame().equals(pandas.DataFrame(columns=list(frame.columns)))


HUGE = """
import resource, sys, time
from gradguard.record import read
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sys.argv[1:]:
    start, run = time.monotonic(), read(folder)
    print(len(run.history["loss"].steps), time.monotonic() - start, end=" ")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, *run.problems, sep="|")
"""


@pytest.mark.slow
def test_two_gigabytes_of_anything_are_read_in_seconds_and_little_memory(tmp_path: Path) -> None:
    zeros, newlines = segment(record(tmp_path / "zeros")), segment(record(tmp_path / "newlines"))
    whole = zeros.read_bytes()
    with zeros.open("r+b") as file:
        file.truncate(2 << 30)  # sparse: no disk is needed
        file.seek(0, 2)
        file.write(b"\n" + line({"weather": "fine"}))
    with newlines.open("ab") as file:
        file.write(b"\n" * (64 << 20) + whole[-1000:])
    command = [sys.executable, "-c", HUGE, str(zeros.parent), str(newlines.parent)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    for is_newlines, told in enumerate(done.stdout.splitlines()):
        numbers, *problems = told.split("|")
        points, seconds, kilobytes = map(float, numbers.split())
        assert points == 40, "what is readable is given"
        assert seconds < 60, "and not after hours"
        assert kilobytes < 300_000
        assert "damaged lines are left out" in problems[-1]
        assert len(problems) == 1 + is_newlines
        assert "is given up after line" in problems[0] or not is_newlines
