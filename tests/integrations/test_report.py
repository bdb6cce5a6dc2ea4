"""The report at the end of a fit: written beside the record, and handed to the loggers that keep pages."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from gradguard.errors import CriticalFindingError, GradGuardWarning
from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.record import read
from tests.integrations.comet import CometLogger, Old
from tests.lightning import readers
from tests.lightning.loggers import mlflow_logger, wandb_logger
from tests.lightning.loops import Plain, loader, trainer
from tests.lightning.test_strict import Raises, TurnsNaN
from tests.lightning.workers import started

pytestmark = pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
PAGE = "<!doctype html><title>größe</title>"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Write a small page in the place of the report, and note how the record stood then."""
    statuses: list[str] = []

    def write_page(runs: list[Any], out: Path, names: Any = None) -> Path:
        (folder,) = runs
        statuses.append(read(folder).manifest.status)
        assert out == folder / "report.html"
        out.write_text(PAGE, encoding="utf-8")
        return out

    monkeypatch.setattr("gradguard.report.write_page", write_page)
    return statuses


def fit(module: Any, loggers: Any, folder: Path, **options: Any) -> Any:
    callback = GradGuard(every_n_steps=5, report=True, figures=False, **options)
    run = trainer([callback], logger=loggers, default_root_dir=folder, max_epochs=1)
    run.fit(module, loader())
    return run


def pages(folder: Path) -> list[Path]:
    return sorted(folder.rglob("report.html"))


def test_the_real_page_tells_of_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO, "gradguard")
    fit(TurnsNaN(), CSVLogger(tmp_path), tmp_path)
    (page,) = pages(tmp_path)
    assert page.parent == next(tmp_path.rglob("manifest.json")).parent
    text = page.read_text(encoding="utf-8")
    assert "non_finite" in text
    assert 'id="gradguard-data"' in text
    said = [record for record in caplog.records if "report" in record.getMessage()]
    assert [(record.levelno, record.getMessage()) for record in said] == [(logging.INFO, f"The report is in {page}")]
    assert capsys.readouterr().out.rstrip().endswith(f"Report: {page}")


def test_it_is_written_once_the_record_is_closed(tmp_path: Path, written: list[str]) -> None:
    fit(Plain(), CSVLogger(tmp_path / "logs"), tmp_path, run_dir=tmp_path / "run", summary=False)
    assert written == ["finished"]
    assert pages(tmp_path) == [tmp_path / "run" / "report.html"]


def test_also_where_an_exception_or_a_critical_finding_is_the_end(tmp_path: Path, written: list[str]) -> None:
    with pytest.raises(KeyError):
        fit(Raises(), CSVLogger(tmp_path / "1"), tmp_path)
    with pytest.raises(CriticalFindingError):
        fit(TurnsNaN(), CSVLogger(tmp_path / "2"), tmp_path, strict=True)
    late = trainer([GradGuard(strict=True, report=True)], logger=CSVLogger(tmp_path / "3"), max_epochs=1)
    with pytest.raises(CriticalFindingError):  # found in the last steps
        late.fit(TurnsNaN(), loader())
    strict = "failed: CriticalFindingError"
    assert written == ["failed: KeyError", strict, strict]
    assert [page.relative_to(tmp_path).parts[0] for page in pages(tmp_path)] == ["1", "2", "3"]


def test_none_is_written_where_none_was_asked_for_or_nothing_was_made(tmp_path: Path, written: list[str]) -> None:
    class Never(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Any:
            raise KeyError("at once")

    trainer([GradGuard()], logger=CSVLogger(tmp_path), max_epochs=1).fit(Plain(), loader())
    trainer([GradGuard(report=True)], default_root_dir=tmp_path, fast_dev_run=2).fit(Plain(), loader())
    with pytest.raises(KeyError):
        fit(Never(), CSVLogger(tmp_path), tmp_path)
    assert written == []


def test_without_a_record_the_callback_says_why_there_will_be_none(tmp_path: Path, written: list[str]) -> None:
    with pytest.warns(GradGuardWarning, match="no report: .* Give the Trainer a logger, or GradGuard a run_dir"):
        fit(Plain(), False, tmp_path)
    assert written == []
    with pytest.raises(ValueError, match=r"report=True and record=False\. Leave out one"):
        GradGuard(report=True, record=False)
    with pytest.raises(TypeError, match="report needs to be True or False, got 'yes'"):
        GradGuard(report="yes")


def test_one_callback_of_several_may_ask_for_it(tmp_path: Path, written: list[str]) -> None:
    trainer([GradientMonitor(), GradGuard(report=True)], logger=CSVLogger(tmp_path), max_epochs=1).fit(
        Plain(), loader()
    )
    assert written == ["finished"]


def test_a_report_that_fails_warns_once_and_the_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("gradguard.report.write_page", fails)
    comet = CometLogger(tmp_path)
    with pytest.warns(GradGuardWarning) as caught:
        run = fit(Plain(), [CSVLogger(tmp_path), comet], tmp_path)
    (warning,) = [one for one in caught if one.category is GradGuardWarning]
    assert "no report of this fit, writing it failed: OSError: no space left on device. The run record is in" in str(
        warning.message
    )
    assert run.state.finished
    assert comet.experiment.named("html") == []


def test_a_failing_report_does_not_hide_the_fits_own_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gradguard.report.write_page", lambda *_: 1 / 0)
    with pytest.warns(GradGuardWarning, match="ZeroDivisionError"), pytest.raises(KeyError, match="no such batch"):
        fit(Raises(), CSVLogger(tmp_path), tmp_path)


@pytest.mark.wandb
def test_wandb_shows_it_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]) -> None:
    logger = wandb_logger(tmp_path, monkeypatch)
    fit(TurnsNaN(), logger, tmp_path)
    file = readers.finish_wandb(logger)
    assert readers.wandb_pages(file) == {"gradguard/report": (11, PAGE)}  # without W&B's own style sheet
    assert readers.wandb(file).scalars["gradguard/grad_norm/total"][-1][0] == 11


@pytest.mark.mlflow
def test_mlflow_keeps_it_among_the_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[str]
) -> None:
    logger = mlflow_logger(tmp_path, monkeypatch, f"sqlite:///{tmp_path / 'mlflow.db'}")
    fit(Plain(), logger, tmp_path)
    listed = [file.path for file in logger.experiment.list_artifacts(logger.run_id, "gradguard")]
    assert sorted(listed) == ["gradguard/report.html", "gradguard/summary-11.txt"]
    kept = logger.experiment.download_artifacts(logger.run_id, "gradguard/report.html", str(tmp_path))
    assert Path(kept).read_text(encoding="utf-8") == PAGE


def test_several_loggers_each_get_what_they_can_show(tmp_path: Path, written: list[str]) -> None:
    csv, board, comet = CSVLogger(tmp_path / "csv"), TensorBoardLogger(tmp_path / "board"), CometLogger(tmp_path)
    old = CometLogger(tmp_path, Old())
    fit(TurnsNaN(), [csv, old, board, comet], tmp_path)
    assert comet.experiment.named("html") == [(PAGE, False)]
    texts = {what["key"]: (text, step) for text, step, what in comet.experiment.named("text")}
    assert texts.keys() == {"gradguard/finding/non_finite", "gradguard/summary"}
    assert texts["gradguard/summary"][1] == 11
    assert "[critical] non_finite" in texts["gradguard/finding/non_finite"][0]
    found = [readers.csv_log(csv.log_dir), readers.tensorboard(board.log_dir)]
    totals = [[x for x, _ in one.scalars["gradguard/grad_norm/total"]] for one in found]
    for one in (comet, old):
        rows = one.experiment.named("numbers")
        totals.append([x for row, x in rows if "gradguard/grad_norm/total" in row])
    assert totals == [[4, 9, 11]] * 4
    assert found[1].texts.keys() == texts.keys()
    assert [name for name, _ in old.experiment.kept if name != "numbers"] == []
    assert {path.name for path in Path(csv.log_dir).iterdir()} == {"metrics.csv", "gradguard"}


def test_one_that_fails_warns_once_whatever_it_is_asked_for(
    tmp_path: Path, written: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    class Gone(Old):
        """Of a server that takes numbers only."""

        def log_text(self, *_: Any, **__: Any) -> None:
            raise ConnectionError("no route to host")

        log_figure = log_html = log_text

    caplog.set_level(logging.INFO, "gradguard")
    bad, good = CometLogger(tmp_path, Gone()), CometLogger(tmp_path)
    with pytest.warns(GradGuardWarning) as caught:
        fit(TurnsNaN(), [bad, good], tmp_path)
    (warning,) = [one for one in caught if one.category is GradGuardWarning]
    assert "CometLogger gets no more of GradGuard's texts, it failed: ConnectionError: no route" in str(warning.message)
    assert any("no more of GradGuard's pages" in record.getMessage() for record in caplog.records)
    assert good.experiment.named("html") == [(PAGE, False)]
    assert len(good.experiment.named("text")) == 2
    assert bad.experiment.kept == [one for one in good.experiment.kept if one[0] == "numbers"]


def two_ranks(folder: Path) -> None:
    callback = GradGuard(every_n_steps=5, report=True, summary=False)
    trainer([callback], strategy="ddp", devices=2, logger=CSVLogger(folder), max_epochs=1).fit(Plain(), loader())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_one_of_several_processes_writes_it(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    started(two_ranks, tmp_path)
    assert len(pages(tmp_path)) == 1
