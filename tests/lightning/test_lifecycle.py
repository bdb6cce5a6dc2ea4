"""Fits that go another way: late parameters, tuners, second fits, cadences of all kinds, optimizers of one's own."""

from __future__ import annotations

import csv
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning
import torch
from packaging.version import Version
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from torch import Tensor, nn

from gradguard import GradGuardWarning
from gradguard.errors import CriticalFindingError
from gradguard.lightning import GradGuard, GradientMonitor
from gradguard.record import read
from tests.lightning.loops import Manual, Plain, Two, loader, trainer
from tests.lightning.test_logging import Watch

MAX = "gradguard/grad_norm/max"


def quiet(**options: Any) -> GradGuard:
    return GradGuard(**{"every_n_steps": 50, "summary": False, **options})


def totals(callback: GradGuard) -> list[float]:
    return callback.guard.history["grad_norm/total"].last.tolist()


@pytest.mark.parametrize("measures", [False, True])
def test_a_clip_by_hand_is_seen_through_where_one_measures_before_it(measures: bool) -> None:
    callback = quiet()

    class Clips(Manual):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            if measures:
                callback.guard.measure()
            self.clip_gradients(optimizer, gradient_clip_val=0.1, gradient_clip_algorithm="norm")
            optimizer.step()

    trainer([callback], max_epochs=1).fit(Clips(lr=0.0), loader())
    module = Plain()
    raw = [torch.cat([g.flatten() for g in torch.autograd.grad(module.loss(b), module.parameters())]) for b in loader()]
    expected = [grad.norm().item() if measures else 0.1 for grad in raw]
    assert totals(callback) == pytest.approx(expected, rel=1e-4)


def test_of_two_backward_passes_before_two_steps_no_loss_is_guessed() -> None:
    class Both(Two):
        def training_step(self, batch: Any, batch_idx: int) -> None:
            first, second = self.optimizers()
            for optimizer in (first, second):
                optimizer.zero_grad()
            self.manual_backward(self.generator(batch[0]).square().mean())
            if batch_idx % 2:
                first.step()
            self.manual_backward(self.critic(batch[0]).square().mean())
            if not batch_idx % 2:
                first.step()
            second.step()

    callback = quiet()
    trainer([callback], max_epochs=1).fit(Both(), loader(4))
    assert callback.guard.history["generator/loss"].steps.tolist() == [2, 4]
    assert callback.guard.history["critic/loss"].steps.tolist() == [2, 4]


class EveryFifth(Manual):
    """Steps at every fifth batch only, beginning with the first."""

    def training_step(self, batch: Any, batch_idx: int) -> None:
        self.manual_backward(self.loss(batch))
        if batch_idx % 5 == 0:
            self.optimizers().step()
            self.optimizers().zero_grad()


def test_rows_are_written_also_where_no_step_meets_the_cadence(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path)
    trainer([quiet()], max_epochs=1, logger=log, log_every_n_steps=10).fit(EveryFifth(), loader(61))
    with (Path(log.log_dir) / "metrics.csv").open() as file:
        written = [int(row["step"]) for row in csv.DictReader(file) if row[MAX]]
    assert written == [10, 20, 30, 40, 50, 60]


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (EveryFifth, {"max_epochs": 2}),
        (Plain, {"max_epochs": 1, "accumulate_grad_batches": 4, "val_check_interval": 5}),
        (Plain, {"max_epochs": 3, "val_check_interval": 7, "check_val_every_n_epoch": None}),
    ],
)
def test_a_monitored_number_is_there_whenever_it_is_asked_for(
    module: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    callback = quiet()
    seen: list[tuple[int, float, float]] = []

    class Look(Callback):
        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            total = float(trainer.callback_metrics["gradguard/grad_norm/total"])
            seen.append((trainer.global_step, total, float(trainer.callback_metrics[MAX])))

    saved = ModelCheckpoint(tmp_path, monitor=MAX, mode="min")
    fit = trainer(
        [callback, Look(), saved], enable_checkpointing=True, log_every_n_steps=50, num_sanity_val_steps=0, **options
    )
    fit.fit(module(), loader(20), loader(2))
    history, before = totals(callback), 0
    assert len(seen) >= 2
    for step, total, largest in seen:
        assert total == pytest.approx(history[step - 1])
        if step > before:
            since = max(before, (step - 1) // 20 * 20 if module is Plain and "val_check_interval" in options else 0)
            assert largest == pytest.approx(max(history[since:step]))
        before = step


@pytest.mark.parametrize("every", [5, 7, 50])
def test_a_monitor_compares_whole_epochs_however_often_rows_are_written(every: int) -> None:
    seen: list[float] = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            seen.append(float(trainer.callback_metrics[MAX]))

    callback = quiet()
    fit = trainer([callback, Look(), EarlyStopping(MAX, patience=99)], max_epochs=3, log_every_n_steps=every)
    fit.fit(Plain(lr=0.2), loader(13))
    history = totals(callback)
    assert seen == pytest.approx([max(history[start : start + 13]) for start in (0, 13, 26)])


def test_a_ratio_that_is_not_known_stops_nothing() -> None:
    watch = Watch()
    stop = EarlyStopping("gradguard/update_ratio/mean", patience=99, mode="min", check_finite=True)
    fit = trainer([quiet(), stop, watch], max_epochs=6)
    fit.fit(Plain(), loader(13))
    assert fit.current_epoch == 6
    assert all(value == value for seen in watch.seen for value in seen.values())


def test_a_scheduler_can_monitor_too() -> None:
    class Plateau(Plain):
        def configure_optimizers(self) -> Any:
            optimizer = super().configure_optimizers()
            scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0, threshold=1e9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": MAX}}

    fit = trainer([quiet()], max_epochs=4, log_every_n_steps=50)
    fit.fit(Plateau(), loader())
    assert fit.optimizers[0].param_groups[0]["lr"] < 0.05


@pytest.mark.filterwarnings("ignore:The .(train|val)_dataloader", "ignore:.*lr_find")
def test_a_tuner_in_the_middle_of_a_fit_leaves_no_trace(tmp_path: Path) -> None:
    class Again(LearningRateFinder):
        def on_fit_start(self, *_: Any) -> None: ...

        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch == 1:
                self.lr_find(trainer, pl_module)

    class Tuned(Plain):
        lr = 0.01

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.net.parameters(), lr=self.lr)

    callback = quiet()
    fit = trainer([callback, Again(num_training_steps=8, update_attr=True)], max_epochs=3, default_root_dir=tmp_path)
    fit.fit(Tuned(), loader())
    assert fit.global_step == 36
    assert callback.guard.steps == {"optimizer": 36}
    assert callback._state == {}


@pytest.mark.parametrize("second", [Plain, Two])
def test_a_fit_of_another_module_is_another_run(second: Any) -> None:
    callback = quiet()
    fit = trainer([callback], max_epochs=1)
    fit.fit(Plain(), loader())
    fit.fit_loop.max_epochs = 2
    fit.fit(second(), loader())
    assert set(callback.guard.steps.values()) == {12}


@pytest.mark.filterwarnings("ignore:.*this fit will run with no optimizer")
def test_a_second_fit_without_an_optimizer_is_no_trouble() -> None:
    class Nothing(Plain):
        def configure_optimizers(self) -> None:
            return None

    callback = quiet()
    fit = trainer([callback], max_epochs=1)
    fit.fit(Plain(), loader())
    fit.fit_loop.max_epochs = 2
    with pytest.warns(GradGuardWarning, match=r"no optimizer: .*use gradguard.Guard\(model, optimizer\)"):
        fit.fit(Nothing(), loader())


def test_a_checkpoint_of_other_optimizers_is_left_out_with_a_word(tmp_path: Path) -> None:
    class More(Two):
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["optimizer_states"] = [optimizer.state_dict() for optimizer in self.configure_optimizers()]
            checkpoint["state_dict"] = self.state_dict()

    fit = trainer([quiet()], max_epochs=1)
    fit.fit(Manual(), loader())
    fit.save_checkpoint(tmp_path / "one.ckpt")
    callback = quiet()
    with pytest.warns(GradGuardWarning, match="those of optimizer, this fit has generator, critic: what was measured"):
        trainer([callback], max_epochs=2).fit(More(), loader(), ckpt_path=tmp_path / "one.ckpt")
    assert set(callback.guard.steps.values()) == {12}


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path.")
def test_a_checkpoint_of_another_norm_is_left_out_with_a_word(tmp_path: Path) -> None:
    fit = trainer([quiet()], max_epochs=1)
    fit.fit(Plain(), loader())
    fit.save_checkpoint(tmp_path / "one.ckpt")
    callback = quiet(norm_type=1.0)
    with pytest.warns(GradGuardWarning, match=r"holds GradGuard\(norm_type=2.0\), this is GradGuard\(norm_type=1.0\)"):
        trainer([callback], max_epochs=2).fit(Plain(), loader(), ckpt_path=tmp_path / "one.ckpt")
    assert callback.guard.steps == {"optimizer": 12}


class Frozen(Plain):
    """Nothing to train in the first epoch."""

    def on_train_epoch_start(self) -> None:
        self.net.requires_grad_(self.current_epoch > 0)

    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) + torch.zeros((), requires_grad=True)

    def on_fit_start(self) -> None:
        self.net.requires_grad_(False)


class Lazy(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.LazyLinear(5), nn.Tanh(), nn.LazyLinear(1))


@pytest.mark.filterwarnings("ignore:Lazy modules", "ignore:The total number of parameters")
@pytest.mark.parametrize(("module", "steps"), [(Frozen, 11), (Lazy, 23)])
def test_parameters_that_are_frozen_or_lazy_at_first_are_measured_from_their_second_step(
    module: Any, steps: int
) -> None:
    callback = quiet()
    trainer([callback], max_epochs=2).fit(module(), loader())
    assert callback.guard.steps == {"optimizer": steps}
    assert callback.guard.diagnose() == []


def test_one_of_two_optimizers_that_has_nothing_to_train_is_named() -> None:
    class Half(Two):
        def on_fit_start(self) -> None:
            self.critic.requires_grad_(False)

        def training_step(self, batch: Any, batch_idx: int) -> None:
            optimizer, _ = self.optimizers()
            optimizer.zero_grad()
            self.manual_backward(self.generator(batch[0]).square().mean())
            optimizer.step()

    callback = quiet()
    with pytest.warns(GradGuardWarning, match="Not measured in this fit: critic, since it has nothing to train yet"):
        trainer([callback], max_epochs=1).fit(Half(), loader())
    assert callback.guard.steps == {"generator": 12}


def test_a_finding_of_the_last_steps_fails_a_strict_run_in_its_record_too(tmp_path: Path) -> None:
    class Bad(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (torch.nan if batch_idx > 4 else 1.0)

    fit = trainer(
        [quiet(strict=True, run_dir=tmp_path / "run")], max_epochs=1, default_root_dir=tmp_path, log_every_n_steps=99
    )
    with pytest.raises(CriticalFindingError):
        fit.fit(Bad(), loader())
    assert read(tmp_path / "run").manifest.status == "failed: CriticalFindingError"


def test_a_callback_at_work_is_not_lent_to_another_trainer() -> None:
    callback = quiet()

    class Nested(Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            trainer([callback], max_epochs=1).fit(Plain(), loader())

    with pytest.raises(ValueError, match=r"at work in another Trainer's fit\. Give each"):
        trainer([callback, Nested()], max_epochs=1).fit(Plain(), loader())
    assert callback.guard.closed


def test_optimizers_that_are_replaced_are_noticed() -> None:
    class Replaces(Callback):
        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            if trainer.current_epoch == 1:
                trainer.strategy.setup_optimizers(trainer)

    with pytest.warns(GradGuardWarning, match="replaced in the middle of the fit: the new ones are not measured"):
        trainer([Replaces(), quiet()], max_epochs=2).fit(Plain(), loader())


def test_a_session_that_can_not_begin_leaves_no_hook(tmp_path: Path) -> None:
    optimizers: list[torch.optim.Optimizer] = []

    class Same(Plain):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            if not optimizers:
                optimizers.append(super().configure_optimizers())
            return optimizers[0]

    module = Same()
    trainer([quiet(run_dir=tmp_path / "run")], max_epochs=1).fit(module, loader())
    with pytest.raises(ValueError, match=r"never overwritten.*fit\(ckpt_path=...\) in a Trainer"):
        trainer([quiet(run_dir=tmp_path / "run")], max_epochs=1).fit(module, loader())
    callback = quiet()
    trainer([callback], max_epochs=1).fit(module, loader())
    assert callback.guard.steps == {"optimizer": 12}


def test_never_is_never(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path)
    trainer([quiet(every_n_steps=3)], max_epochs=1, logger=log, log_every_n_steps=0).fit(Plain(), loader())
    assert not (Path(log.log_dir) / "metrics.csv").exists()


def test_a_record_is_written_or_not() -> None:
    with pytest.raises(ValueError, match="either written or not: got record=False and run_dir='x'"):
        GradGuard(record=False, run_dir="x")


def test_an_automatic_one_follows_the_users_monitor() -> None:
    monitor, automatic = GradientMonitor(every_n_steps=3), GradGuard()
    automatic.is_automatic = True
    trainer([monitor, automatic], max_epochs=1).fit(Plain(), loader())
    assert automatic.guard is monitor.guard
    assert "by 14 rules" in monitor.guard.summary() or "too few" in monitor.guard.summary()


@pytest.mark.skipif(Version(pytorch_lightning.__version__) < Version("2.6"), reason="validation by the clock is newer")
def test_a_monitored_number_is_there_where_the_clock_decides(tmp_path: Path) -> None:
    callback, saved = quiet(), ModelCheckpoint(tmp_path, monitor=MAX, mode="min")
    by_the_clock = {"val_check_interval": timedelta(milliseconds=1), "check_val_every_n_epoch": None}
    fit = trainer([callback, saved], enable_checkpointing=True, max_epochs=1, log_every_n_steps=50, **by_the_clock)
    fit.fit(Plain(), loader(), loader(2))
    assert any(saved.best_model_score.item() == pytest.approx(total) for total in totals(callback))
