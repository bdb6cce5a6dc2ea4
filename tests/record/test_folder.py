"""Folders that can't hold a record: an error before training, a warning once it runs, never a lost run."""

from __future__ import annotations

import resource
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gradguard import GradGuardWarning, Guard
from gradguard.errors import RecordError
from gradguard.record import read, writer
from tests.guard.loops import batches, mlp, train
from tests.record.records import blocks, feed, journal, same


def guard(folder: Path | str, **settings: Any) -> tuple[torch.nn.Module, torch.optim.Optimizer, Guard]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, optimizer, Guard(model, optimizer, run_dir=folder, **{"every_n_steps": 5, **settings})


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    model, optimizer, first = guard(tmp_path)
    with first:
        train(model, optimizer, batches(7))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model, optimizer, second = guard(tmp_path)
    for _ in range(2):
        with pytest.raises(RecordError, match=r"holds the record of another run, which is never overwritten\. Choose"):
            train(model, optimizer, batches(1))
    second.close()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("manifest", "words"), [("", "is damaged"), ("[]", "is damaged"), ('{"format": 2}', "Upgrade gradguard")]
)
def test_a_manifest_that_is_not_ours_is_left_alone(tmp_path: Path, manifest: str, words: str) -> None:
    (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(RecordError, match=words):
        journal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text() == manifest


def test_other_files_in_the_folder_stay(tmp_path: Path) -> None:
    names = ["segment-data.csv", "segment-000001.csv", "segment-1.jsonl", "notes.txt"]
    for name in names:
        (tmp_path / name).write_text("mine")
    made = journal(tmp_path)
    feed(made, blocks(1))
    made.close("finished")
    assert {name: (tmp_path / name).read_text() for name in names} == dict.fromkeys(names, "mine")
    same(read(tmp_path).history, made.history)


@pytest.mark.parametrize("below", [(), ("run",), ("deep", "run")])
def test_a_folder_that_is_a_file_or_lies_below_one(tmp_path: Path, below: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RecordError, match=r"can't be written to .*file.*Choose another run_dir"):
        guard(tmp_path.joinpath("file", *below))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_where_nothing_can_be_made() -> None:
    with pytest.raises(RecordError, match=r"can't be written to /proc/run .*Choose another run_dir"):
        guard("/proc/run")


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """A write beyond that fails, as on a disk that fills up: part of it is written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(("limit", "least"), [(6000, 1 << 20), (13_001, 1 << 20), (6000, 1)])
def test_a_disk_that_fills_up_ends_the_record_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, least: int
) -> None:
    """In the middle of a line, or of a compaction."""
    monkeypatch.setattr(writer, "LEAST", least)
    torch.manual_seed(0)
    model, optimizer, one = guard(tmp_path)
    train(model, optimizer, batches(5))
    with files_of_at_most(limit), pytest.warns(GradGuardWarning, match=r"File too large.*Training goes on") as told:
        train(model, optimizer, batches(95))
    one.close()
    assert len(told) == 1
    assert one.steps == {"optimizer": 100}
    assert one.history["grad_norm/total"].steps.tolist() == list(range(1, 101))
    run = read(tmp_path)
    steps = run.history["grad_norm/total"].steps.tolist()
    assert steps == list(range(1, steps[-1] + 1))
    assert 5 <= steps[-1] < 100
    assert all("torn line" in problem for problem in run.problems)
    assert run.manifest.status == "running", "as of a run that was killed"
    assert not list(tmp_path.glob("*.tmp")), "they would take the room that is left"
    torch.manual_seed(0)
    twin = mlp()
    train(twin, torch.optim.SGD(twin.parameters(), lr=0.1), [*batches(5), *batches(95)])
    assert all(map(torch.equal, model.parameters(), twin.parameters()))


def test_a_snapshot_that_finds_no_room_leaves_none_of_itself(tmp_path: Path) -> None:
    made, (first, second) = journal(tmp_path), blocks(2)
    feed(made, [first])
    before = read(tmp_path)
    assert made.writer is not None
    made.writer.broken_off = True
    with files_of_at_most(1000), pytest.warns(GradGuardWarning, match=r"File too large.*Training goes on"):
        feed(made, [second])
    made.close("finished")
    same(read(tmp_path).history, before.history)
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *before.manifest.segments}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_device_is_an_error_before_the_first_step_and_a_warning_later(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json.tmp").symlink_to("/dev/full")
    with pytest.raises(RecordError, match="No space left on device"):
        journal(tmp_path / "run")
    made, those = journal(tmp_path / "later"), blocks(3)
    feed(made, those[:1])
    before = read(tmp_path / "later")
    assert made.writer is not None
    assert made.writer.file is not None
    made.writer.file.close()
    made.writer.file = Path("/dev/full").open("wb")  # noqa: SIM115  # the writer closes it
    with pytest.warns(GradGuardWarning, match=r"ends here.*No space left on device.*Training goes on"):
        feed(made, those[1:2])
    feed(made, those[2:])  # and nothing more is said
    made.close("finished")
    assert made.history["loss"].steps[-1] == 30
    same(read(tmp_path / "later").history, before.history)


def _two_ranks(rank: int, folder: str) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    model, optimizer, one = guard(Path(folder) / f"of-{rank}")
    with one:
        train(model, optimizer, batches(7))
    assert one.history["grad_norm/total"].steps.tolist()[-1] == 7
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


def test_ranks_other_than_0_write_nothing(tmp_path: Path) -> None:
    mp.start_processes(_two_ranks, (str(tmp_path),), nprocs=2, start_method="fork")
    assert read(tmp_path / "of-0").history["grad_norm/total"].steps.tolist() == list(range(1, 8))
    assert not (tmp_path / "of-1").exists()


def test_a_guard_that_makes_no_step_writes_nothing_into_its_folder(tmp_path: Path) -> None:
    _, _, one = guard(tmp_path / "run")
    one.close()
    assert list((tmp_path / "run").iterdir()) == []
