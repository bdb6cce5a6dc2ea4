"""What the Trainer itself gets to see: callback metrics, monitors, the progress bar, the log."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor

from gradguard.detect import VanishingDepth
from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.record import read
from tests.lightning.loops import BATCH, Plain, Two, loader, trainer

TOTAL = "gradguard/grad_norm/total"


class Watch(Callback):
    """What a monitor would read at the end of each batch."""

    def __init__(self) -> None:
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        self.seen.append({key: float(value) for key, value in trainer.callback_metrics.items()})


class Spiking(Plain):
    """The gradient of batch 6 is a thousand times that of the others."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * (1000.0 if batch_idx == 6 else 1.0)


def test_summaries_are_there_when_the_trainer_logs_and_at_the_end_of_an_epoch(tmp_path: Path) -> None:
    watch, callback = Watch(), GradGuard(every_n_steps=50, summary=False)
    trainer([callback, watch], max_epochs=1, log_every_n_steps=5).fit(Spiking(lr=1e-5), loader())
    total = callback.guard.history["grad_norm/total"].last
    assert all(TOTAL not in metrics for metrics in watch.seen[:4])
    for last, since in ((5, 0), (10, 5)):
        seen, values = watch.seen[last - 1], total[since:last]
        assert seen[TOTAL] == pytest.approx(values[-1].item())
        assert seen["gradguard/grad_norm/mean"] == pytest.approx(values.mean().item())
        assert seen["gradguard/grad_norm/max"] == pytest.approx(values.max().item())
        assert seen["gradguard/non_finite_share"] == seen["gradguard/overflows"] == 0
    assert watch.seen[9]["gradguard/grad_norm/max"] > 300 * watch.seen[9][TOTAL]  # the spike at step 7 is not lost
    assert watch.seen[11][TOTAL] == pytest.approx(total[11].item())
    ratios = torch.stack([p.last for key, p in callback.guard.history.items() if key.startswith("update_ratio/")])
    by_step_5 = ratios[:, :4].double()  # sampled at steps 1, 2, 3, 4 and 8
    assert watch.seen[4]["gradguard/update_ratio/mean"] == pytest.approx(by_step_5.log().mean().exp().item(), rel=1e-5)


def test_steps_with_nan_are_shared_out_and_shown() -> None:
    class Bad(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (torch.nan if batch_idx == 4 else 1.0)

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            for param in self.parameters():  # a loop that throws bad gradients away after the callbacks saw them
                param.grad.nan_to_num_(0.0)

    watch = Watch()
    trainer([GradGuard(every_n_steps=3, summary=False), watch], max_epochs=1).fit(Bad(), loader())
    assert watch.seen[4]["gradguard/non_finite_share"] == pytest.approx(0.2)
    assert watch.seen[4]["gradguard/grad_norm/mean"] == watch.seen[4]["gradguard/grad_norm/mean"]
    assert str(watch.seen[4][TOTAL]) == "nan"
    assert watch.seen[9]["gradguard/non_finite_share"] == 0


@pytest.mark.parametrize("first", [True, False])
def test_early_stopping_and_checkpoints_can_monitor_the_total(tmp_path: Path, first: bool) -> None:
    guard = GradGuard(every_n_steps=50, summary=False)
    saved = ModelCheckpoint(tmp_path, "{step}", monitor=TOTAL, every_n_train_steps=1, save_top_k=1, mode="min")
    stop = EarlyStopping(TOTAL, patience=0, mode="min", min_delta=1e9, check_on_train_epoch_end=True)
    order = [guard, saved, stop] if first else [saved, stop, guard]
    fit = trainer(order, max_epochs=9, log_every_n_steps=50, enable_checkpointing=True)
    fit.fit(Plain(), loader())
    total = guard.guard.history["grad_norm/total"].last
    assert fit.current_epoch == 2  # nothing is an improvement by 1e9
    assert saved.best_model_path.endswith(f"step={int(total.argmin()) + 1}.ckpt")
    assert saved.best_model_score.item() == pytest.approx(total.min().item())


def test_a_monitored_maximum_is_there_at_each_validation() -> None:
    class Look(Callback):
        def __init__(self) -> None:
            self.seen: list[float] = []

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            self.seen.append(float(trainer.callback_metrics["gradguard/grad_norm/max"]))

    look, guard = Look(), GradGuard(every_n_steps=50, summary=False)
    stop = EarlyStopping("gradguard/grad_norm/max", patience=100, mode="min")
    options = {"val_check_interval": 4, "num_sanity_val_steps": 0, "max_epochs": 2}
    trainer([guard, look, stop], **options).fit(Plain(), loader(), loader(2))
    total = guard.guard.history["grad_norm/total"].last
    # Logged at steps 5, 10 ... (the Trainer's own cadence) and before each validation: what has passed since.
    assert look.seen[0] == pytest.approx(total[:4].max().item())
    assert look.seen[1] == pytest.approx(total[5:8].max().item())
    assert len(look.seen) == 6


def test_the_progress_bar_shows_the_norm_on_request_only() -> None:
    for asked in (False, True):
        shown: list[dict[str, Any]] = []

        class Bar(Callback):
            def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
                shown.append(dict(trainer.progress_bar_metrics))  # noqa: B023

        guard = GradGuard(every_n_steps=50, summary=False, prog_bar=asked)
        trainer([guard, Bar()], max_epochs=1).fit(Plain(), loader())
        total = guard.guard.history["grad_norm/total"].last.tolist()
        norms = [metrics["gradguard/norm"] for metrics in shown if "gradguard/norm" in metrics]
        assert norms == (pytest.approx(total) if asked else [])
        assert all(set(metrics) <= {"gradguard/norm"} for metrics in shown)


def test_between_two_looks_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    callback = GradGuard(every_n_steps=6, summary=False)
    trainer([callback], max_epochs=1, log_every_n_steps=6).fit(Plain(), loader())
    assert callback.guard.host_reads == 2


def test_several_optimizers_have_their_names_in_front() -> None:
    fit = trainer([GradientMonitor(every_n_steps=4)], max_epochs=1)
    fit.fit(Two(), loader())
    assert {"gradguard/generator/grad_norm/total", "gradguard/critic/grad_norm/max"} <= fit.callback_metrics.keys()


def test_accumulating_batches_log_once(tmp_path: Path) -> None:
    watch = Watch()
    fit = trainer([GradGuard(summary=False), watch], max_epochs=1, accumulate_grad_batches=4, log_every_n_steps=1)
    fit.fit(Plain(), loader())
    assert [TOTAL in metrics for metrics in watch.seen[:4]] == [False, False, False, True]


def sick() -> Plain:
    module = Plain()
    module.net = torch.nn.Sequential(
        *[layer for _ in range(8) for layer in (torch.nn.Linear(6, 6), torch.nn.Sigmoid())], torch.nn.Linear(6, 1)
    )
    return module


def test_a_finding_is_said_at_once_and_told_at_the_end(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "gradguard")
    callback = GradGuard(every_n_steps=10, run_dir=tmp_path / "run", detectors=[VanishingDepth()])
    trainer([callback], max_epochs=1).fit(sick(), loader(60))
    (said,) = [record for record in caplog.records if record.name == "gradguard"]
    assert said.levelno == logging.WARNING
    assert "vanishing_depth in net.0" in said.getMessage()
    assert "steps 1 to 5" in said.getMessage()
    out = capsys.readouterr().out
    assert out.startswith("optimizer (SGD): 60 steps, 18 parameters in 9 modules\n")
    assert "vanishing_depth" in out
    (event,) = callback.guard.events
    assert event.step == 5
    run = read(tmp_path / "run")
    assert run.events == (event,)
    assert run.manifest.status == "finished"


def test_a_monitor_says_nothing(caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]) -> None:
    callback = GradientMonitor(every_n_steps=10)
    trainer([callback], max_epochs=1).fit(sick(), loader(60))
    assert capsys.readouterr().out == ""
    assert [record for record in caplog.records if record.name == "gradguard"] == []
    assert callback.guard.diagnose() == []
    assert len(callback.guard.history["grad_norm/total"].steps) == 60


def test_barebones_measures_and_logs_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    class Bare(Plain):
        validation_step = None

    callback = GradGuard()
    fit = trainer([callback], barebones=True, default_root_dir=tmp_path)
    fit.fit(Bare(), loader())
    assert callback.guard.steps == {"optimizer": 24}
    assert fit.callback_metrics == {}
    assert list(tmp_path.iterdir()) == []
    assert "24 steps" in capsys.readouterr().out


@pytest.mark.parametrize("options", [{"logger": False}, {"fast_dev_run": 2}])
def test_where_the_trainer_writes_nothing_neither_does_the_callback(tmp_path: Path, options: dict[str, Any]) -> None:
    trainer([GradGuard(summary=False)], default_root_dir=tmp_path, **options).fit(Plain(), loader(BATCH))
    assert list(tmp_path.iterdir()) == []
