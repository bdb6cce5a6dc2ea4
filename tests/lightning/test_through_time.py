"""The callback that looks through time: numbers and figures read back from real loggers, findings, and no trace."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from torch import Tensor, nn
from torch.multiprocessing import ProcessRaisedException
from torch.utils.data import DataLoader, TensorDataset

from gradguard import init
from gradguard.detect import Severity, Symptom
from gradguard.lightning import GradGuard, GradientMonitor, ThroughTimeMonitor
from gradguard.probe import ThroughTime
from gradguard.record import read
from tests.guard.recurrent import FEATURES, Reader, T
from tests.lightning import readers
from tests.lightning.loops import Plain, trainer, weights
from tests.lightning.workers import Report, started

pytestmark = pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")


class Reading(Plain):
    """A recurrent network that reads a sequence and says one number."""

    def __init__(self, rnn: nn.Module | None = None, **options: Any) -> None:
        super().__init__(**options)
        torch.manual_seed(0)
        self.net = Reader(rnn)


def sequences(batches: int = 12) -> DataLoader:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(batches * 4, T, FEATURES, generator=generator), torch.randn(batches * 4, 1, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=4, collate_fn=_time_first)


def _time_first(items: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in items], 1), torch.stack([y for _, y in items])


def dropping() -> nn.LSTM:
    return nn.LSTM(FEATURES, 6, num_layers=2, dropout=0.4)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_and_random_numbers_are_those_of_a_fit_without_it(precision: Any) -> None:
    ends = []
    for callbacks in ([], [ThroughTimeMonitor(sample_every_n_steps=5)], [GradGuard(through_time=True, summary=False)]):
        torch.manual_seed(0)
        module = Reading(dropping())
        trainer(callbacks, precision=precision).fit(module, sequences())
        ends.append([*weights(module), torch.get_rng_state()])
    for end in ends[1:]:
        assert all(torch.equal(a, b) for a, b in zip(ends[0], end, strict=True))


def test_numbers_reach_the_loggers_and_the_record(tmp_path: Path) -> None:
    callback = ThroughTimeMonitor(sample_every_n_steps=10, every_n_steps=5)
    logger = CSVLogger(tmp_path)
    trainer([callback, GradGuard(every_n_steps=5, summary=False)], logger=logger).fit(Reading(), sequences())
    assert callback.guard is not None
    found, history = readers.csv_log(logger.log_dir), callback.guard.history
    layer = "net.rnn.l0"
    for name in (f"through_time/{layer}/horizon", f"through_time/{layer}/rate", f"gates/{layer}/f/mean"):
        series = history[name]
        assert series.steps.tolist() == [1, 2, 3, 4, 8, 10, 20]
        expected = list(zip((series.steps - 1).tolist(), series.last.tolist(), strict=True))
        logged = found.scalars[f"gradguard/{name}"]
        assert [(x, pytest.approx(value)) for x, value in logged] == expected
    assert not any("bin_" in key or "memory" in key for key in found.scalars)
    kept = read(Path(logger.log_dir) / "gradguard").history
    assert torch.equal(kept["memory/net.rnn.l0/7"].last, history["memory/net.rnn.l0/7"].last)


def _figures(folder: str) -> dict[str, list[int]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(folder, size_guidance={"images": 0})
    events.Reload()
    found = {}
    for key in events.Tags()["images"]:
        images = events.Images(key)
        assert all(image.encoded_image_string.startswith(b"\x89PNG") and image.width > 200 for image in images)
        found[key] = [image.step for image in images]
    return found


def test_figures_are_drawn_at_the_end_and_as_often_as_looks_have_doubled(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    logger = TensorBoardLogger(tmp_path)
    callback = ThroughTimeMonitor(sample_every_n_steps=4, every_n_steps=4)
    trainer([callback], logger=logger, max_epochs=6).fit(Reading(), sequences())  # 72 steps, 20 looks
    assert _figures(logger.log_dir) == {
        "gradguard/memory/net.rnn.l0": [51, 71],
        "gradguard/gates/net.rnn.l0": [51, 71],
    }


def test_none_are_drawn_where_nobody_wants_them(tmp_path: Path) -> None:
    logger = TensorBoardLogger(tmp_path)
    trainer([ThroughTimeMonitor(figures=False)], logger=logger).fit(Reading(), sequences())
    assert _figures(logger.log_dir) == {}


@pytest.mark.wandb
def test_wandb_gets_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("wandb")
    from pytorch_lightning.loggers import WandbLogger

    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = WandbLogger(project="gradguard", save_dir=tmp_path, offline=True)
    trainer([ThroughTimeMonitor()], logger=logger).fit(Reading(), sequences())
    file = readers.finish_wandb(logger)
    names = {path.name.partition("_")[0] for path in (file.parent / "files" / "media").rglob("*.png")}
    assert len(list((file.parent / "files" / "media").rglob("*.png"))) == 2, names


@pytest.mark.mlflow
def test_mlflow_gets_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("mlflow")
    from pytorch_lightning.loggers import MLFlowLogger

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    logger = MLFlowLogger(str(tmp_path), tracking_uri=uri, artifact_location=(tmp_path / "artifacts").as_uri())
    trainer([ThroughTimeMonitor()], logger=logger).fit(Reading(), sequences())
    drawn = sorted(path.relative_to(tmp_path / "artifacts").as_posix() for path in tmp_path.rglob("*.png"))
    assert [name.partition("artifacts/")[2] for name in drawn] == [
        "gradguard/gates/net.rnn.l0-23.png",
        "gradguard/memory/net.rnn.l0-23.png",
    ]


def test_a_gradient_that_does_not_reach_the_tasks_lag_is_found() -> None:
    rnn = nn.RNN(FEATURES, 6)
    nn.init.constant_(rnn.weight_hh_l0, 0.01)
    found = []
    for module in (rnn, init_chrono()):
        callback = ThroughTimeMonitor(sample_every_n_steps=20, lag=20)
        trainer([callback], max_epochs=30).fit(Reading(module, lr=1e-3), sequences())
        assert callback.guard is not None
        found.append(callback.guard.diagnose())
    assert found[1] == []
    (finding,) = found[0]
    assert (finding.symptom, finding.where, finding.active) == (Symptom.VANISHING_TIME, ("net.rnn.l0",), True)
    assert finding.severity is Severity.WARNING
    assert finding.evidence["lag of the task"] == 20


def init_chrono() -> nn.LSTM:
    lstm = nn.LSTM(FEATURES, 6)
    init.chrono_(lstm, T)
    return lstm


def test_callbacks_share_one_look() -> None:
    first, second = ThroughTimeMonitor(lag=9), GradGuard(summary=False, record=False)
    trainer([GradientMonitor(), first, second]).fit(Reading(), sequences())
    assert first.guard is second.guard
    with pytest.raises(ValueError, match=r"One guard looks through time in one way: .*Remove one of them"):
        trainer([ThroughTimeMonitor(lag=9), GradGuard(through_time=True)]).fit(Reading(), sequences())
    same = ThroughTime(200, 9)
    trainer([ThroughTimeMonitor(lag=9), GradGuard(through_time=same, summary=False, record=False)]).fit(
        Reading(), sequences()
    )


def test_a_module_without_recurrence_is_refused_at_the_start() -> None:
    from tests.lightning.loops import loader

    with pytest.raises(ValueError, match="through_time needs a model with a recurrent module"):
        trainer([ThroughTimeMonitor()]).fit(Plain(), loader())


def test_a_mistake_is_said_where_it_was_typed() -> None:
    with pytest.raises(ValueError, match="ThroughTime needs every_n_steps"):
        ThroughTimeMonitor(sample_every_n_steps=0)
    with pytest.raises(TypeError, match="needs through_time to be True, False"):
        GradGuard(through_time="yes")


class OneExplodes(Reading):
    """The state of a quiet sequence is unstable; a loud one saturates it. The second process reads quiet ones."""

    def __init__(self) -> None:
        rnn = nn.RNN(FEATURES, 6)
        with torch.no_grad():
            rnn.weight_hh_l0.copy_(2.0 * torch.eye(6))
            rnn.bias_hh_l0.zero_()
            rnn.bias_ih_l0.zero_()
        super().__init__(rnn, lr=0.0)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.loss((batch[0] * (1e-9 if self.global_rank else 99.0), batch[1]))


def strict_run(folder: Path) -> None:
    guard = GradGuard(every_n_steps=2, strict=True, summary=False, record=False, through_time=True)
    callbacks = [guard, Report(folder)]
    trainer(callbacks, strategy="ddp", devices=2, default_root_dir=folder).fit(OneExplodes(), sequences())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_where_one_process_sees_it_explode_all_stop(tmp_path: Path) -> None:
    with pytest.raises(ProcessRaisedException, match="stopped by a critical finding"):
        started(strict_run, tmp_path)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert ranks[0]["exception"].endswith("It is of another process's batch.")
    assert "[critical] exploding_time in net.rnn.l0" in ranks[1]["exception"]
    assert ranks[0]["steps"] == ranks[1]["steps"] == {"optimizer": 4}


YAML = """
trainer:
  accelerator: cpu
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: gradguard.lightning.ThroughTimeMonitor
      init_args: {sample_every_n_steps: 7, lag: 12, modules: [rnn], figures: false}
    - class_path: gradguard.lightning.GradGuard
      init_args:
        summary: false
        record: false
        through_time:
          class_path: gradguard.probe.ThroughTime
          init_args: {every_n_steps: 7, lag: 12, modules: [rnn]}
"""


@pytest.mark.filterwarnings(
    "ignore:.*LightningCLI's args parameter is intended to run from within Python",
    r"ignore:\s+(By default|``|skip_none):DeprecationWarning",
)
@pytest.mark.parametrize("tree", ["pytorch_lightning", "lightning.pytorch"])
def test_both_clis_take_it_from_yaml(tree: str, tmp_path: Path) -> None:
    pytest.importorskip("jsonargparse")
    lightning = importlib.import_module(tree)
    cli = importlib.import_module(f"{tree}.cli")

    class Module(lightning.LightningModule):  # type: ignore[name-defined,misc]  # of either tree
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(FEATURES, 6), nn.Linear(6, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return (self.out(self.rnn(batch[0])[0][-1]) - batch[1]).square().mean()

        def train_dataloader(self) -> DataLoader:
            return sequences(8)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    (tmp_path / "config.yaml").write_text(YAML)
    run = cli.LightningCLI(
        Module,
        seed_everything_default=1,
        args=["fit", "--config", str(tmp_path / "config.yaml")],
        save_config_callback=None,
    )
    (monitor,) = (one for one in run.trainer.callbacks if isinstance(one, ThroughTimeMonitor))
    assert monitor.guard.history["through_time/rnn.l0/horizon"].steps.tolist() == [1, 2, 3, 4, 7]
