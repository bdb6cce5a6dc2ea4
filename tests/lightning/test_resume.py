"""A fit that is resumed from the middle of an epoch goes on bit for bit, in weights and in everything measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.record import read
from tests.lightning.loops import BATCH, Plain, Stateful, Two, counts_from_a_checkpoint, loader, trainer, weights
from tests.lightning.test_strict import rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory",
    "ignore:Experiment logs directory",
    "ignore:Be aware that when using .ckpt_path.",
    "ignore:Using ModelCheckpoint with manual optimization",
)


class Overflowing(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * (1e30 if batch_idx in (3, 6, 9) else 1.0)


def data() -> Stateful:
    return Stateful(loader(13).dataset, batch_size=BATCH)


def scaler() -> dict[str, Any]:
    return {"plugins": [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8))]}


def fit(
    module: Any, folder: Path, ckpt: Path | None = None, save: int = 0, callbacks: Any = None, **options: Any
) -> GradGuard:
    callbacks = callbacks or [GradGuard(every_n_steps=5, summary=False)]
    saving = [ModelCheckpoint(folder, "at-{step}", every_n_train_steps=save, save_top_k=-1)] if save else []
    options = {"max_epochs": 3, "enable_checkpointing": bool(save), "logger": CSVLogger(folder, version="v"), **options}
    fit = trainer([*callbacks, *saving], **options)
    fit.fit(module, data(), ckpt_path=ckpt)
    return next(callback for callback in callbacks if isinstance(callback, GradGuard))


def everything(callback: GradGuard) -> Any:
    state = callback.state_dict()
    state["guard"]["journal"].pop("run")
    return state


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0)) and a.dtype == b.dtype
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


@pytest.mark.parametrize("at", [3, 5, 7, 16, pytest.param(26, marks=counts_from_a_checkpoint)])
def test_weights_history_findings_and_the_record_go_on_bit_for_bit(tmp_path: Path, at: int) -> None:
    whole, parts = Plain(momentum=0.9), Plain(momentum=0.9)
    first = fit(whole, tmp_path / "whole", save=at)
    resumed = fit(parts, tmp_path / "parts", ckpt=tmp_path / "whole" / f"at-step={at}.ckpt")
    assert resumed.guard.steps == {"optimizer": 39}
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))
    assert same(everything(first), everything(resumed))
    record = read(tmp_path / "parts" / "lightning_logs" / "v" / "gradguard")  # a new folder holds the whole run
    assert record.problems == ()
    for key, points in first.guard.history.items():
        assert all(same(a, b) for a, b in zip(points, record.history[key], strict=True)), key


@counts_from_a_checkpoint
def test_what_is_logged_after_it_is_what_would_have_been_logged(tmp_path: Path) -> None:
    fit(Plain(), tmp_path / "whole", save=7)
    fit(Plain(), tmp_path / "parts", ckpt=tmp_path / "whole" / "at-step=7.ckpt")
    whole, parts = (rows(tmp_path / name / "lightning_logs" / "v") for name in ("whole", "parts"))

    def after(table: list[dict[str, str]]) -> list[tuple[Any, ...]]:
        keys = sorted({key for row in table for key in row if key.startswith("gradguard/")})
        return [tuple(row[key] for key in keys) for row in table if int(row["step"]) >= 7]

    assert after(parts) == after(whole)
    assert len(after(parts)) > 8


@pytest.mark.parametrize(
    ("module", "options"), [pytest.param(Overflowing, scaler, marks=counts_from_a_checkpoint), (Two, dict)]
)
def test_under_a_scaler_and_with_two_optimizers(tmp_path: Path, module: Any, options: Any) -> None:
    whole, parts = module(), module()
    first = fit(whole, tmp_path / "whole", save=14, **options())
    resumed = fit(parts, tmp_path / "parts", ckpt=tmp_path / "whole" / "at-step=14.ckpt", **options())
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(parts), strict=True))
    assert same(everything(first), everything(resumed))


def test_the_same_folder_goes_on_where_the_checkpoint_was(tmp_path: Path) -> None:
    guard = [GradGuard(every_n_steps=5, summary=False, run_dir=tmp_path / "run")]
    fit(Plain(), tmp_path / "a", save=7, callbacks=guard)
    before = read(tmp_path / "run")
    again = [GradGuard(every_n_steps=5, summary=False, run_dir=tmp_path / "run")]
    fit(Plain(), tmp_path / "b", ckpt=tmp_path / "a" / "at-step=7.ckpt", callbacks=again, max_epochs=2)
    after = read(tmp_path / "run")
    assert after.manifest.run == before.manifest.run
    assert after.manifest.created == before.manifest.created
    assert before.history["loss"].steps.tolist() == list(range(1, 40))
    assert after.history["loss"].steps.tolist() == list(range(1, 27))
    assert torch.equal(after.history["loss"].last, before.history["loss"].last[:26])


def test_another_order_of_callbacks_finds_the_state(tmp_path: Path) -> None:
    def callbacks() -> list[Any]:
        return [GradGuard(every_n_steps=5, summary=False), GradientMonitor(every_n_steps=5)]

    first = fit(Plain(), tmp_path / "whole", save=7, callbacks=callbacks())
    turned = callbacks()[::-1]
    resumed = fit(Plain(), tmp_path / "parts", ckpt=tmp_path / "whole" / "at-step=7.ckpt", callbacks=turned)
    assert same(first.guard.state_dict()["tracks"], resumed.guard.state_dict()["tracks"])


def test_a_checkpoint_holds_plain_data_only(tmp_path: Path) -> None:
    fit(Plain(), tmp_path, save=7)
    saved = torch.load(tmp_path / "at-step=7.ckpt", weights_only=True)
    (state,) = [value for key, value in saved["callbacks"].items() if key.startswith("GradGuard")]
    assert state["guard"]["tracks"]["optimizer"]["step"] == 7


def test_a_checkpoint_without_our_state_starts_afresh(tmp_path: Path) -> None:
    trainer(
        [ModelCheckpoint(tmp_path, "at-{step}", every_n_train_steps=7)], enable_checkpointing=True, max_epochs=1
    ).fit(Plain(), data())
    resumed = fit(Plain(), tmp_path / "parts", ckpt=tmp_path / "at-step=7.ckpt")
    assert resumed.guard.steps == {"optimizer": 32}


def test_what_a_monitor_compares_reaches_back_before_the_checkpoint(tmp_path: Path) -> None:
    key = "gradguard/grad_norm/max"

    class Spike(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (100.0 if self.global_step == 14 else 1.0)  # the second batch of the second epoch

    class Look(EarlyStopping):
        def __init__(self) -> None:
            super().__init__(key, patience=99)
            self.seen: list[float] = []

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            self.seen.append(float(trainer.callback_metrics[key]))

    looks = [Look(), Look()]
    for look, folder, ckpt in zip(
        looks, ("whole", "parts"), (None, tmp_path / "whole" / "at-step=17.ckpt"), strict=True
    ):
        callbacks = [GradGuard(every_n_steps=5, summary=False), look]
        fit(Spike(lr=1e-4), tmp_path / folder, save=0 if ckpt else 17, ckpt=ckpt, callbacks=callbacks)
    assert looks[0].seen[1] > 20 * looks[0].seen[0]
    assert looks[1].seen == looks[0].seen[1:]
