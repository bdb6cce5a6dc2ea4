"""The demo's sick network with TensorBoard, W&B and MLflow at once, all of them real, and read back."""

from __future__ import annotations

from pathlib import Path

import pytest
from pytorch_lightning.loggers import TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

from gradguard.demo import BATCH, Classifier, load, sick_network
from gradguard.lightning import GradGuard
from gradguard.record import find_record, read
from tests.lightning import readers
from tests.lightning.loggers import mlflow_logger, wandb_logger
from tests.lightning.loops import trainer

STEPS = 69  # of three epochs
SYMPTOM = "vanishing_depth"


@pytest.mark.wandb
@pytest.mark.mlflow
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
def test_each_dashboard_tells_of_the_sick_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board, bees = TensorBoardLogger(tmp_path / "board"), wandb_logger(tmp_path / "bees", monkeypatch)
    flow = mlflow_logger(tmp_path / "flow", monkeypatch, f"sqlite:///{tmp_path / 'mlflow.db'}")
    data = load()
    fit = trainer([GradGuard(report=True)], max_epochs=3, logger=[board, bees, flow], log_every_n_steps=10)
    fit.fit(Classifier(sick_network()), DataLoader(TensorDataset(data.train_x, data.train_y), BATCH, shuffle=True))

    record = find_record(tmp_path)
    page, run = (record / "report.html").read_text(encoding="utf-8"), read(record)
    assert SYMPTOM in page
    total = run.history["grad_norm/total"]
    totals = dict(zip(total.steps.tolist(), total.last.tolist(), strict=True))
    file = readers.finish_wandb(bees)
    found = {"board": readers.tensorboard(board.log_dir), "bees": readers.wandb(file), "flow": readers.mlflow(flow)}
    for name, one in found.items():
        series = one.scalars["gradguard/grad_norm/total"]
        assert [x for x, _ in series][:3] == [9, 19, 29], name
        assert [value for _, value in series] == pytest.approx([totals[x + 1] for x, _ in series], rel=1e-5), name
        assert one.scalars[f"gradguard/finding/{SYMPTOM}"][0][1] == 1.0, name
        assert SYMPTOM in one.texts[f"gradguard/finding/{SYMPTOM}"][0][1], name
    assert readers.wandb_pages(file)["gradguard/report"] == (STEPS - 1, page)
    kept = flow.experiment.download_artifacts(flow.run_id, "gradguard/report.html", str(tmp_path))
    assert Path(kept).read_text(encoding="utf-8") == page
