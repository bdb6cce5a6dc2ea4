"""With a report, all layers over the run as pictures, on the dashboards that show any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor

from gradguard.errors import GradGuardWarning
from gradguard.lightning import GradGuard
from tests.integrations.comet import CometLogger
from tests.lightning import readers
from tests.lightning.loggers import mlflow_logger, wandb_logger
from tests.lightning.loops import Plain, Two, loader, trainer
from tests.lightning.test_through_time import Reading, sequences

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
LAYERS = ["gradguard/layers/grad_norm", "gradguard/layers/update_ratio"]


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    def write_page(runs: Any, out: Path) -> Path:
        out.write_text("page")
        return out

    monkeypatch.setattr("gradguard.report.write_page", write_page)


def fit(module: Any, loggers: Any, folder: Path, batches: Any = None, **options: Any) -> None:
    callback = GradGuard(report=True, summary=False, **options)
    run = trainer([callback], logger=loggers, default_root_dir=folder, max_epochs=1)
    run.fit(module, loader() if batches is None else batches)


def images(folder: str) -> list[str]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"images": 0})
    events.Reload()
    for key in events.Tags()["images"]:
        assert all(image.step == 11 and image.width > 200 for image in events.Images(key))
    return sorted(events.Tags()["images"])


def test_tensorboard_and_comet(tmp_path: Path) -> None:
    board, comet = TensorBoardLogger(tmp_path), CometLogger(tmp_path)
    fit(Plain(), [board, comet], tmp_path)
    assert images(board.log_dir) == LAYERS
    assert comet.experiment.named("figure") == [(key, 11) for key in LAYERS]


def test_beside_those_through_time(tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path)
    fit(Reading(), board, tmp_path, sequences(), through_time=True)
    assert images(board.log_dir) == ["gradguard/gates/net.rnn.l0", *LAYERS, "gradguard/memory/net.rnn.l0"]


def test_of_each_optimizer(tmp_path: Path) -> None:
    comet = CometLogger(tmp_path)
    fit(Two(), comet, tmp_path)
    assert sorted(key for key, _ in comet.experiment.named("figure")) == [
        f"gradguard/{name}/layers/{what}" for name in ("critic", "generator") for what in ("grad_norm", "update_ratio")
    ]


@pytest.mark.mlflow
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = mlflow_logger(tmp_path, monkeypatch, f"sqlite:///{tmp_path / 'mlflow.db'}")
    fit(Plain(), logger, tmp_path)
    listed = [file.path for file in logger.experiment.list_artifacts(logger.run_id, "gradguard/layers")]
    assert sorted(listed) == [f"{key}-11.png" for key in LAYERS]


@pytest.mark.wandb
def test_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = wandb_logger(tmp_path, monkeypatch)
    fit(Plain(), logger, tmp_path)
    file = readers.finish_wandb(logger)
    drawn = (file.parent / "files" / "media").rglob("*.png")
    assert sorted(path.name.rsplit("_", 2)[0] for path in drawn) == ["grad_norm", "update_ratio"]


def test_none_are_drawn_where_nobody_wants_or_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    monkeypatch.setattr("gradguard.report.plot_layers", lambda *_, **__: drawn.append("layers"))
    monkeypatch.setattr("gradguard.report.plot_memory", lambda *_, **__: drawn.append("memory"))
    fit(Plain(), TensorBoardLogger(tmp_path), tmp_path, figures=False)
    fit(Reading(), CSVLogger(tmp_path), tmp_path, sequences(), through_time=True)
    trainer([GradGuard(summary=False)], logger=TensorBoardLogger(tmp_path), max_epochs=1).fit(Plain(), loader())
    assert drawn == []


def test_one_that_cannot_be_drawn_warns_once_and_the_fit_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gradguard.report.plot_layers", lambda *_, **__: 1 / 0)
    comet = CometLogger(tmp_path)
    with pytest.warns(GradGuardWarning, match="draws no more figures, .* failed: ZeroDivisionError") as caught:
        fit(Plain(), comet, tmp_path)
    assert sum(one.category is GradGuardWarning for one in caught) == 1
    assert comet.experiment.named("figure") == []
    assert len(comet.experiment.named("html")) == 1


def test_where_nothing_is_finite_there_is_nothing_to_draw(tmp_path: Path) -> None:
    class Bad(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * torch.nan

    comet = CometLogger(tmp_path)
    fit(Bad(), comet, tmp_path)
    assert comet.experiment.named("figure") == []
    assert len(comet.experiment.named("html")) == 1
