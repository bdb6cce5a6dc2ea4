"""Strict runs, runs that an exception ends, and arguments that can't be meant."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor

from gradguard import GradGuardError, GradGuardWarning
from gradguard.errors import CriticalFindingError, RecordError
from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.lightning.session import Session
from gradguard.record import read
from tests.lightning.loops import Plain, loader, trainer


class TurnsNaN(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * (torch.nan if batch_idx >= 7 else 1.0)


class Raises(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if batch_idx == 7:
            raise KeyError("no such batch")
        return self.loss(batch)


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.", "ignore:You're resuming from a checkpoint")
def test_a_critical_finding_stops_a_strict_fit_with_a_checkpoint_saved_and_the_loggers_closed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    callback, logger = GradGuard(every_n_steps=5, strict=True), CSVLogger(tmp_path)
    fit = trainer([callback], default_root_dir=tmp_path, logger=logger, enable_checkpointing=True, max_epochs=1)
    with pytest.raises(CriticalFindingError, match=r"(?s)strict=True.*saved to .*step=10.ckpt.*non_finite") as caught:
        fit.fit(TurnsNaN(), loader())
    assert isinstance(caught.value, GradGuardError)
    (path,) = tmp_path.rglob("*.ckpt")
    saved = torch.load(path, weights_only=True)
    assert saved["global_step"] == 10
    assert path.parent.name == "checkpoints"  # where the Trainer keeps its own
    assert fit.state.status == "interrupted"
    assert "Verdict: non_finite" in capsys.readouterr().out
    run = read(next(tmp_path.rglob("manifest.json")))
    assert run.manifest.status == "failed: CriticalFindingError"
    assert run.findings[0].first_step == 8
    assert rows(Path(logger.log_dir))[-1]["gradguard/non_finite_share"] == "0.6"  # three of the last five steps
    assert callback.guard.closed
    resumed = GradGuard(every_n_steps=5)
    trainer([resumed], max_epochs=2, default_root_dir=tmp_path / "2").fit(Plain(), loader(), ckpt_path=path)
    assert resumed.guard.events[0].finding.first_step == 8


def test_findings_are_told_as_they_are_noticed_and_the_error_holds_its_own(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    callback = GradGuard(every_n_steps=5, strict=True, notify=lambda f: told.append((f.symptom.value, f.last_step)))
    fit = trainer([callback, GradientMonitor(every_n_steps=5)], default_root_dir=tmp_path, max_epochs=1)
    with pytest.raises(CriticalFindingError) as caught:
        fit.fit(TurnsNaN(), loader())
    assert told == [("non_finite", 10)]
    assert caught.value.finding == callback.guard.diagnose()[0]


def test_a_function_that_fails_does_not_end_the_fit(tmp_path: Path) -> None:
    callback = GradGuard(every_n_steps=5, notify=[lambda f: 1 / 0])
    with pytest.warns(GradGuardWarning, match="raised ZeroDivisionError"):
        trainer([callback], max_epochs=1, default_root_dir=tmp_path).fit(TurnsNaN(), loader())
    assert callback.guard.steps == {"optimizer": 12}


def test_what_is_found_in_the_last_steps_stops_it_as_well(tmp_path: Path) -> None:
    fit = trainer([GradGuard(every_n_steps=50, strict=True)], default_root_dir=tmp_path, max_epochs=1)
    with pytest.raises(CriticalFindingError, match="non_finite"):
        fit.fit(TurnsNaN(), loader())
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_a_warning_or_an_fp16_overflow_stops_nothing(tmp_path: Path) -> None:
    module = Plain(lr=0.0)  # found as update_too_small, a warning
    detectors_fire_early = GradGuard(every_n_steps=5, strict=True)
    trainer([detectors_fire_early], max_epochs=20, default_root_dir=tmp_path).fit(module, loader())
    assert detectors_fire_early.guard.diagnose()


def test_without_strict_the_fit_goes_on(tmp_path: Path) -> None:
    callback = GradGuard(every_n_steps=5)
    trainer([callback], max_epochs=1, default_root_dir=tmp_path).fit(TurnsNaN(), loader())
    assert callback.guard.steps == {"optimizer": 12}


@pytest.mark.parametrize("saving", [False, True])
def test_an_exception_of_the_fit_is_told_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], saving: bool
) -> None:
    callback, logger = GradGuard(every_n_steps=50), CSVLogger(tmp_path)
    callbacks = [callback, ModelCheckpoint(tmp_path / "c", every_n_train_steps=3)] if saving else [callback]
    fit = trainer(callbacks, default_root_dir=tmp_path, logger=logger, enable_checkpointing=saving)
    with pytest.raises(KeyError, match="no such batch"):
        fit.fit(Raises(), loader())
    assert "7 steps" in capsys.readouterr().out
    assert read(next(tmp_path.rglob("manifest.json"))).manifest.status == "failed: KeyError"
    last = rows(Path(logger.log_dir))[-1]
    total = callback.guard.history["grad_norm/total"].last
    assert float(last["gradguard/grad_norm/max"]) == pytest.approx(total[5:].max().item())
    assert len(total) == 7


def test_a_failing_summary_does_not_hide_the_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gradguard import Guard

    monkeypatch.setattr(Guard, "summary", lambda self: 1 / 0)
    with pytest.raises(KeyError, match="no such batch"):
        trainer([GradGuard()], default_root_dir=tmp_path).fit(Raises(), loader())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps to be an integer >= 1, got 0"),
        ({"norm_type": -1}, ValueError, "norm_type > 0 or inf, got -1"),
        ({"max_points": 1}, ValueError, "max_points to be an integer >= 2"),
        ({"detail": "everything"}, ValueError, "detail needs to be one of total, module, parameter, got 'everything'"),
        ({"detectors": [3]}, TypeError, "AbstractDetector objects, got 3"),
        ({"strict": "yes"}, TypeError, "strict needs to be True or False, got 'yes'"),
        ({"run_dir": 3}, TypeError, "run_dir needs to be a path, got 3"),
        ({"notify": "mail"}, TypeError, "notify to be a function that takes a finding, or a list of such, got 'mail'"),
    ],
)
def test_a_mistake_is_said_where_it_was_typed(arguments: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        GradGuard(**arguments)


def test_callbacks_that_can_not_share_a_guard(tmp_path: Path) -> None:
    pairs = [
        ([GradGuard(every_n_steps=5), GradientMonitor()], "share one guard: GradGuard has every_n_steps=5, Gradient"),
        ([GradGuard(norm_type=1.0), GradientMonitor()], "norm_type=1.0, GradientMonitor has norm_type=2.0"),
        (
            [GradGuard(run_dir=tmp_path / "a"), GradGuard(norm_type=1.0, run_dir=tmp_path / "b")],
            "norm_type=2.0, GradGuard has norm_type=1.0",
        ),
    ]
    for callbacks, words in pairs:
        with pytest.raises(ValueError, match=words):
            trainer(callbacks).fit(Plain(), loader())
    with pytest.raises(RuntimeError, match="more than one stateful callback of type `GradGuard`"):
        trainer([GradGuard(), GradGuard()])


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_record_is_never_written_over_another(tmp_path: Path) -> None:
    def fit(**options: Any) -> None:
        logger = CSVLogger(tmp_path, version="same")
        trainer([GradGuard(summary=False, **options)], max_epochs=1, logger=logger).fit(Plain(), loader())

    fit(run_dir=tmp_path / "mine")
    before = read(tmp_path / "mine")
    with pytest.raises(RecordError, match="holds the record of another run, which is never overwritten"):
        fit(run_dir=tmp_path / "mine")
    assert read(tmp_path / "mine").manifest == before.manifest
    home = tmp_path / "lightning_logs" / "same"
    for number, name in enumerate(("gradguard", "gradguard-2", "gradguard-3"), start=1):
        fit()  # a folder that nobody chose gives way
        assert len(list(home.glob("gradguard*"))) == number
        assert len(read(home / name).history["loss"].steps) == 12


@pytest.mark.filterwarnings("ignore:Experiment logs directory")
def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match=r"can't be written to .*file.*Choose another run_dir"):
        trainer([GradGuard(run_dir=tmp_path / "file" / "run")]).fit(Plain(), loader())

    home = tmp_path / "lightning_logs" / "v"
    home.mkdir(parents=True)
    (home / "gradguard").write_text("")
    fit = trainer([GradGuard(summary=False)], max_epochs=1, logger=CSVLogger(tmp_path, version="v"))
    with pytest.warns(GradGuardWarning, match="There will be no run record: .*gradguard"):
        fit.fit(Plain(), loader())
    assert (home / "metrics.csv").exists()


def test_a_process_that_an_exception_ends_asks_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    made = Session.end

    def end(session: Session, exception: BaseException | None = None) -> None:
        if session.guard.closed:
            return
        monkeypatch.setattr(type(session.trainer), "world_size", 2)
        monkeypatch.setattr(session.trainer.strategy, "reduce_boolean_decision", lambda *_, **__: asked.append("all"))
        made(session, exception)

    monkeypatch.setattr(Session, "end", end)
    fit = trainer([GradGuard(every_n_steps=50, strict=True)], default_root_dir=tmp_path, max_epochs=1)
    with pytest.raises(KeyError, match="no such batch"):
        fit.fit(Raises(), loader())
    assert not asked


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.", "ignore:You're resuming from a checkpoint")
def test_a_resumed_strict_fit_is_stopped_by_what_still_holds(tmp_path: Path) -> None:
    first = trainer([GradGuard(every_n_steps=5)], default_root_dir=tmp_path, max_epochs=1)
    module = TurnsNaN()
    first.fit(module, loader())
    first.save_checkpoint(tmp_path / "nan.ckpt")
    again = trainer([GradGuard(every_n_steps=5, strict=True)], default_root_dir=tmp_path / "2", max_epochs=3)
    with pytest.raises(CriticalFindingError, match="non_finite"):
        again.fit(TurnsNaN(), loader(), ckpt_path=tmp_path / "nan.ckpt")
