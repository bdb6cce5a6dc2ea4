"""Two CPU processes under each strategy: both ranks see what one process sees, and none waits for the other."""

from __future__ import annotations

import copy
import csv
import math
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.strategies import ModelParallelStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.multiprocessing import ProcessRaisedException

from gradguard.lightning import GradGuard
from gradguard.record import read
from tests.lightning.loops import Manual, loader, trainer
from tests.lightning.workers import (
    EVERY,
    OWN,
    VARIANTS,
    Joined,
    Parallel,
    Report,
    Sharded,
    all_variants,
    fit,
    fsdp2,
    module_of,
    started,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(120),  # a rank that waits for the other one would wait for half an hour
    pytest.mark.filterwarnings("ignore"),  # of Lightning and torch.distributed, other ones in each version
]
ROOT = Path(__file__).parents[2]
FORKED: dict[str, Callable[[], Any]] = {"ddp": lambda: "ddp", "fsdp2": fsdp2}
STRATEGIES = ["ddp_fork", "ddp_spawn", "ddp", "fsdp2", "ddp by script", "fsdp2 by script"]
FITS = [(s, v) for s in STRATEGIES for v in VARIANTS if s != "ddp_spawn" or v == "7 batches"]  # spawning takes 8 s


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """All variants under a strategy, once."""
    folders: dict[str, Path] = {}

    def run(strategy: str) -> Path:
        if strategy not in folders:
            folder = folders[strategy] = tmp_path_factory.mktemp("runs")
            kind, _, by_script = strategy.partition(" ")
            if strategy == "one process":
                for name in VARIANTS:
                    fit(folder, name, None)
            elif by_script:
                script = [sys.executable, "-m", "tests.lightning.workers", kind, str(folder)]
                subprocess.run(script, cwd=ROOT, check=True, timeout=100, capture_output=True)
            elif kind in FORKED:
                started(all_variants, folder, FORKED[kind])
            else:
                all_variants(folder, lambda: kind, [v for s, v in FITS if s == kind])
        return folders[strategy]

    return run


def seen(folder: Path, ranks: int = 2) -> list[dict[str, Any]]:
    return [torch.load(folder / f"{rank}.pt") for rank in range(ranks)]


def assert_equal(a: Any, b: Any, **close: float) -> None:
    close = close or {"rtol": 0, "atol": 0}
    torch.testing.assert_close(a, b, equal_nan=True, **close)


@pytest.mark.parametrize(("strategy", "variant"), FITS)
def test_both_ranks_see_what_one_process_sees(folder_of: Any, strategy: str, variant: str) -> None:
    first, second = seen(folder_of(strategy) / variant)
    (one,) = seen(folder_of("one process") / variant, 1)
    batches, options, _ = VARIANTS[variant]
    a_step = options.get("accumulate_grad_batches", 1)
    assert first["steps"] == {"optimizer": math.ceil(batches / a_step) * options.get("max_epochs", 2)}
    for key in ("history", "events", "found", "steps", "logged", "weights"):
        assert_equal(first[key], second[key])
    if strategy.startswith("fsdp2"):
        del one["history"]["update_norm/relative"]  # is not sampled of shards
    assert set(first["history"]) == set(one["history"])
    assert {"loss", "grad_norm/total", "update_ratio/net.0.weight"} <= set(one["history"])
    for key, points in one["history"].items():
        sampled = key.startswith("update_ratio/")  # Adam's first steps are 1, however small the gradient
        assert_equal(first["history"][key], points, rtol=3e-2 if sampled else 1e-5, atol=1e-7)
    assert (first["found"] == []) == (one["found"] == [])
    assert set(first["logged"]) == set(one["logged"])
    for key, value in one["logged"].items():
        assert_equal(first["logged"][key], value, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_final_weights_are_bit_identical(folder_of: Any, strategy: str) -> None:
    watched, bare = (seen(folder_of(strategy) / name) for name in ("7 batches", "7 batches, bare"))
    assert "history" not in bare[0]
    assert_equal([rank["weights"] for rank in watched], [rank["weights"] for rank in bare])


@pytest.mark.parametrize(("strategy", "variant"), FITS)
def test_the_first_rank_alone_writes(folder_of: Any, strategy: str, variant: str) -> None:
    folder = folder_of(strategy) / variant
    history = seen(folder)[0]["history"]
    versions = [path for kind in ("tb", "csv") for path in (folder / kind).iterdir()]
    assert [path.name for path in versions] == ["version_0", "version_0"]
    tb, table = versions
    assert len([path for path in tb.iterdir() if path.name.startswith("events")]) == 1
    assert [path.name for path in tb.iterdir() if path.is_dir()] == ["gradguard"]
    record = read(tb / "gradguard")
    assert record.manifest.status == "finished"
    written = {key: points for key, points in record.history.items() if not key.startswith(OWN)}
    assert set(written) == set(history)
    for key, points in written.items():
        assert_equal(list(points), history[key])
    assert not (table / "gradguard").exists()

    total = dict(zip(history["grad_norm/total"][0].tolist(), history["grad_norm/total"][1].tolist(), strict=True))
    board = EventAccumulator(str(tb), size_guidance={"histograms": 0}).Reload()
    per_epoch = math.ceil(VARIANTS[variant][0] / VARIANTS[variant][1].get("accumulate_grad_batches", 1))
    logged = {event.step: event.value for event in board.Scalars("gradguard/grad_norm/total")}
    assert {step: total[step + 1] for step in logged} == pytest.approx(logged, rel=1e-6)
    assert {step for step in range(per_epoch) if (step + 1) % 4 == 0} <= set(logged)
    with (table / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["gradguard/grad_norm/total"]]
    assert {int(r["step"]): float(r["gradguard/grad_norm/total"]) for r in rows} == pytest.approx(logged, rel=1e-6)
    if "detail" in VARIANTS[variant][2]:
        norms = dict(zip(*(column.tolist() for column in history["grad_norm/net.0.weight"][:2]), strict=True))
        layer = board.Scalars("gradguard/grad_norm/net.0.weight")
        assert {e.step: norms[e.step + 1] for e in layer} == pytest.approx({e.step: e.value for e in layer}, rel=1e-6)
        bars = board.Histograms("gradguard/grad_histogram/net.0.weight")
        assert [e.step + 1 for e in bars] == [step for step in norms if step % EVERY == 0]
        assert [e.histogram_value.num for e in bars] == [36] * len(bars)
        squares = [math.sqrt(e.histogram_value.sum_squares) for e in bars]
        assert squares == pytest.approx([norms[e.step + 1] for e in bars], rel=1e-5)


class Unsharded(Parallel):
    def configure_model(self) -> None:
        pass


@pytest.mark.parametrize("of_loss", [False, True])
def test_tensor_parallel(of_loss: bool, tmp_path: Path) -> None:
    """Both ranks see all rows, each holds a part of every layer; ``loss_parallel`` makes a DTensor of the loss."""

    def run(name: str, module: LightningModule, **options: Any) -> None:
        callbacks = [GradGuard(every_n_steps=3, summary=False, histograms=True), Report(tmp_path / name)]
        trainer(callbacks, max_epochs=1, use_distributed_sampler=False, **options).fit(module, loader(7))

    def parallel() -> None:
        strategy = ModelParallelStrategy(data_parallel_size=1, tensor_parallel_size=2)
        run("parallel", Parallel(of_loss=of_loss), strategy=strategy, devices=2)

    started(parallel)
    run("one", Unsharded())
    first, second = seen(tmp_path / "parallel")
    (one,) = seen(tmp_path / "one", 1)
    del one["history"]["update_norm/relative"]  # is not sampled of shards
    for key in ("history", "events", "found", "steps", "logged", "weights"):
        assert_equal(first[key], second[key])
        assert_equal(first[key], one[key], rtol=1e-5, atol=1e-7)


class Broken(Joined):
    """At one batch, one rank's loss is multiplied."""

    def __init__(self, factor: float, at: int) -> None:
        super().__init__()
        self.factor, self.at = factor, at

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        return loss * (self.factor if (self.global_rank, batch_idx) == (1, self.at) else 1.0)


class BrokenSharded(Broken, Sharded):
    pass


def strict_run(folder: Path, make: Callable[[], Any], every: int) -> None:
    strategy = make()
    module = (BrokenSharded if module_of(strategy) is Sharded else Broken)(math.nan, 4)
    callbacks = [GradGuard(every_n_steps=every, strict=True, summary=False), Report(folder)]
    fitted = trainer(callbacks, strategy=strategy, devices=2, log_every_n_steps=100, default_root_dir=folder)
    fitted.fit(module)


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("kind", FORKED)
def test_a_strict_run_stops_on_both_ranks(kind: str, every: int, tmp_path: Path) -> None:
    """A NaN of one rank's loss is in both ranks' gradients; with 50, the end of the fit finds it."""
    with pytest.raises(ProcessRaisedException, match="stopped by a critical finding"):
        started(strict_run, tmp_path, FORKED[kind], every)
    first, second = seen(tmp_path)
    assert first["exception"] == second["exception"]
    assert first["exception"].startswith("CriticalFindingError: Training was stopped")
    assert first["steps"] == second["steps"] == {"optimizer": {1: 5, 3: 6, 50: 14}[every]}
    assert_equal(first["history"], second["history"])
    assert first["history"]["loss"][1].isnan().nonzero()[0].tolist() == [4]
    (saved,) = tmp_path.glob("gradguard-critical-step=*.ckpt")
    state = torch.load(saved / "meta.pt" if saved.is_dir() else saved, weights_only=True)
    assert state["global_step"] == first["steps"]["optimizer"]
    assert any("guard" in one for one in state["callbacks"].values())


class Silent(Joined, Manual):
    """One rank's loss is NaN at one batch; its gradients are not."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        loss = self.loss(batch)
        self.manual_backward(loss + loss.detach() * (math.nan if (self.global_rank, batch_idx) == (1, 4) else 0.0))
        optimizer.step()


def test_a_loss_that_is_nan_on_one_rank_only(tmp_path: Path) -> None:
    def run() -> None:
        callbacks = [GradGuard(every_n_steps=3, summary=False), Report(tmp_path)]
        trainer(callbacks, strategy="ddp", devices=2, max_epochs=1).fit(Silent())

    started(run)
    first, second = seen(tmp_path)
    for key in ("history", "events", "found", "weights"):
        assert_equal(first[key], second[key])
    assert first["history"]["loss"][1].isnan().nonzero().tolist() == [[4]]
    assert all(value.isfinite().all() for value in first["weights"].values())


def test_resumed_in_the_middle(tmp_path: Path) -> None:
    """From the middle of an epoch, between two flushes: as the run that was not interrupted."""

    def run(name: str, stop: int, **how: Any) -> None:
        saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=stop, save_top_k=-1, filename="{step}")
        callbacks = [GradGuard(every_n_steps=3, summary=False, run_dir=tmp_path / name), Report(tmp_path / name), saver]
        options = {"strategy": "ddp_fork", "devices": 2, "enable_checkpointing": True, "default_root_dir": tmp_path}
        trainer(callbacks, **options, max_epochs=3).fit(Joined(), **how)

    run("whole", 11)
    run("resumed", 100, ckpt_path=tmp_path / "saved" / "step=11.ckpt")
    whole, resumed = seen(tmp_path / "whole"), seen(tmp_path / "resumed")
    for key in ("history", "events", "found", "steps", "weights"):
        assert_equal(whole[0][key], resumed[0][key])
        assert_equal(resumed[0][key], resumed[1][key])
    assert resumed[0]["steps"] == {"optimizer": 21}
    assert read(tmp_path / "resumed").history["loss"].steps.tolist() == list(range(1, 22))


def test_sharded_run_resumed(tmp_path: Path) -> None:
    def run(name: str, **how: Any) -> None:
        saver = ModelCheckpoint(tmp_path / "saved", every_n_train_steps=5, save_top_k=-1, filename="{step}")
        callbacks = [GradGuard(every_n_steps=3, summary=False), Report(tmp_path / name)]
        options = {"strategy": fsdp2(), "devices": 2, "enable_checkpointing": True}
        fitted = trainer([*callbacks, *([] if how else [saver])], **options, default_root_dir=tmp_path, max_epochs=2)
        fitted.fit(Sharded(), **how)

    started(run, "whole")
    started(lambda: run("resumed", ckpt_path=tmp_path / "saved" / "step=5.ckpt"))
    whole, resumed = seen(tmp_path / "whole"), seen(tmp_path / "resumed")
    for key in ("history", "events", "found", "steps", "weights"):
        assert_equal(whole[0][key], resumed[0][key])
        assert_equal(resumed[0][key], resumed[1][key])


class Raising(Joined):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        if (self.global_rank, batch_idx) == (1, 4):
            raise RuntimeError("rank 1 is out of luck")
        return super().training_step(batch, batch_idx)


class RaisingSharded(Raising, Sharded):
    pass


@pytest.mark.parametrize("kind", ["ddp_fork", *FORKED])
def test_an_exception_on_one_rank_ends_both(kind: str, tmp_path: Path) -> None:
    """The steps since the last flush are looked at without asking the other rank, which is gone or waits elsewhere."""

    def run() -> None:
        strategy = FORKED[kind]() if kind in FORKED else kind
        module = RaisingSharded() if module_of(strategy) is Sharded else Raising()
        guard = GradGuard(every_n_steps=3, run_dir=tmp_path / "record")
        trainer([guard, Report(tmp_path)], strategy=strategy, devices=2, log_every_n_steps=100).fit(module)

    if kind == "ddp_fork":  # Lightning tells no callback in either process
        with pytest.raises(ProcessRaisedException, match="rank 1 is out of luck"):
            run()
        assert read(tmp_path / "record").history["loss"].steps.tolist() == [1, 2, 3]
        return
    with pytest.raises(ProcessRaisedException):
        started(run)
    first, second = seen(tmp_path)
    assert second["exception"] == "RuntimeError: rank 1 is out of luck"
    assert first["steps"] == second["steps"] == {"optimizer": 4}
    assert first["closed"]
    assert second["closed"]
    assert first["history"]["grad_norm/total"][0].tolist() == [1, 2, 3, 4]
    assert_equal(first["history"]["grad_norm/total"], second["history"]["grad_norm/total"])
    assert read(tmp_path / "record").manifest.status == "failed: RuntimeError"


class Asks(Callback):
    """One rank asks in the middle of an interval; the other one goes on."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_rank == 0 and trainer.global_step % 3 == 2:
            callback = trainer.callbacks[0]
            guard = callback.guard
            assert guard.diagnose() == []
            steps = guard.history["loss"].steps.tolist() if guard.history else []
            assert steps == list(range(1, trainer.global_step // 3 * 3 + 1))  # as of the last flush
            assert "steps" in guard.summary()
            for twin in (copy.deepcopy(callback), pickle.loads(pickle.dumps(callback))):
                assert twin.state_dict() == {}


@pytest.mark.parametrize("kind", FORKED)
def test_one_rank_may_ask(kind: str, tmp_path: Path) -> None:
    def run(name: str, *more: Callback) -> None:
        strategy = FORKED[kind]()
        callbacks = [GradGuard(every_n_steps=3, summary=False), *more, Report(tmp_path / name)]
        trainer(callbacks, strategy=strategy, devices=2, log_every_n_steps=100).fit(module_of(strategy)())

    started(run, "asked", Asks())
    started(run, "not asked")
    asked, not_asked = seen(tmp_path / "asked"), seen(tmp_path / "not asked")
    for key in ("history", "events", "found", "steps", "weights"):
        assert_equal(asked[0][key], asked[1][key])
        assert_equal(asked[0][key], not_asked[0][key])
