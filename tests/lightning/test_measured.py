"""What the callback measures: the raw gradient of each optimizer's step, whatever the Trainer does around it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from gradguard.lightning import GradGuard, GradientMonitor
from tests.guard.loops import total_of
from tests.lightning.loops import Manual, Plain, Two, loader, trainer


def expected(module: Plain, batches: list[Any], accumulate: int = 1, clip: float | None = None) -> list[float]:
    """Totals of a plain loop over the same data, raw, in NumPy; the steps are made with clipped gradients."""
    twin = copy.deepcopy(module)
    optimizer, totals = twin.configure_optimizers(), []
    for start in range(0, len(batches), accumulate):
        window = batches[start : start + accumulate]
        optimizer.zero_grad()
        for batch in window:
            (twin.loss(batch) / accumulate).backward()
        totals.append(total_of(twin))
        if clip:
            torch.nn.utils.clip_grad_norm_(twin.parameters(), clip)
        optimizer.step()
    return totals


def watched(module: Any, every: int = 4, **options: Any) -> GradGuard:
    callback = GradGuard(every_n_steps=every, summary=False)
    trainer([callback], max_epochs=1, **options).fit(module, loader())
    return callback


@pytest.mark.parametrize(
    ("options", "accumulate", "clip"),
    [
        ({}, 1, None),
        ({"gradient_clip_val": 0.3}, 1, 0.3),
        ({"accumulate_grad_batches": 5}, 5, None),  # the last window is shorter
        ({"accumulate_grad_batches": 2, "gradient_clip_val": 0.3}, 2, 0.3),
    ],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_totals_are_those_of_a_plain_loop_before_its_clip(
    options: dict[str, Any], accumulate: int, clip: float | None, scaled: bool
) -> None:
    module = Plain()
    totals = expected(module, list(loader()), accumulate, clip)
    if scaled:  # float32 autocast off by a plain forward: only the scaling is at stake
        plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))
        plugin.forward_context = lambda: torch.autocast("cpu", enabled=False)
        options = {**options, "plugins": [plugin]}
    guard = watched(module, **options).guard
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(totals, rel=1e-5)
    assert guard.history["grad_norm/total"].steps.tolist() == list(range(1, len(totals) + 1))


def test_fused_under_a_scaler_is_measured_unscaled() -> None:
    module = Plain(torch.optim.Adam, fused=True)
    totals = expected(module, list(loader()))
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**12))
    plugin.forward_context = lambda: torch.autocast("cpu", enabled=False)
    guard = watched(module, plugins=[plugin]).guard
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(totals, rel=1e-5)


@pytest.mark.parametrize("fused", [False, True])
def test_an_fp16_overflow_is_counted_and_enters_no_series(fused: bool) -> None:
    class Overflowing(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.loss(batch) * (1e30 if batch_idx in (3, 7) else 1.0)

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8))
    callback = watched(Overflowing(torch.optim.Adam, fused=fused), plugins=[plugin])
    total = callback.guard.history["grad_norm/total"]
    assert total.steps.tolist() == [1, 2, 3, 5, 6, 7, 9, 10, 11, 12]
    assert total.last.isfinite().all()
    assert callback.guard.diagnose() == []
    assert "fp16 overflows, skipped by the loss scaler: 2" in callback.guard.summary()


@pytest.mark.parametrize("kind", [Plain, Manual])
def test_the_loss_is_that_of_training_step(kind: type[Plain]) -> None:
    module = kind()
    twin, losses = copy.deepcopy(module), []
    optimizer = twin.configure_optimizers()
    for batch in loader():
        optimizer.zero_grad()
        loss = twin.loss(batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert watched(module).guard.history["loss"].last.tolist() == pytest.approx(losses, rel=1e-6)


def test_the_loss_under_accumulation_and_scaling_is_the_mean_of_the_micro_batches() -> None:
    module = Plain(lr=0.0)
    losses = [module.loss(batch).item() for batch in loader()]
    means = [sum(losses[i : i + 3]) / 3 for i in range(0, 12, 3)]
    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**7))
    plugin.forward_context = lambda: torch.autocast("cpu", enabled=False)
    guard = watched(module, accumulate_grad_batches=3, plugins=[plugin]).guard
    assert guard.history["loss"].last.tolist() == pytest.approx(means, rel=1e-6)


def test_several_optimizers_are_named_after_what_they_train() -> None:
    module = Two()
    twin, totals = copy.deepcopy(module), {"generator": [], "critic": []}
    optimizers = twin.configure_optimizers()
    for x, _ in loader():
        for i, (name, optimizer) in enumerate(zip(totals, optimizers, strict=True)):
            net = getattr(twin, name)
            optimizer.zero_grad()
            ((twin.critic(x) * (1 + twin.generator(x))).mean() * (1 - 2 * i)).backward()
            totals[name].append(total_of(net))
            optimizer.step()
    guard = watched(module).guard
    assert guard.steps == {"generator": 12, "critic": 12}
    for name, values in totals.items():
        assert guard.history[f"{name}/grad_norm/total"].last.tolist() == pytest.approx(values, rel=1e-5)
    assert "critic/weight_norm/critic.0.weight" in guard.history


def test_optimizers_that_share_a_child_go_by_their_place() -> None:
    class Halves(Two):
        def configure_optimizers(self) -> list[torch.optim.Optimizer]:
            first, second = self.generator[:2], self.generator[2:]
            return [torch.optim.SGD(half.parameters(), lr=0.1) for half in (first, second)]

        def training_step(self, batch: Any, batch_idx: int) -> None:
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(self.generator(batch[0]).square().mean())
            for optimizer in self.optimizers():
                optimizer.step()

    assert watched(Halves()).guard.steps == {"0": 12, "1": 12}


def test_the_order_of_the_callbacks_changes_no_number() -> None:
    found = []
    for place in (0, 1):
        guard, monitor = GradGuard(every_n_steps=4, summary=False), GradientMonitor(every_n_steps=4)
        trainer([guard, monitor] if place else [monitor, guard], max_epochs=1).fit(Plain(), loader())
        assert monitor.guard is guard.guard
        found.append({key: points.last.tolist() for key, points in guard.guard.history.items()})
    assert str(found[0]) == str(found[1])


def test_lbfgs_has_one_row_for_each_step() -> None:
    guard = watched(Plain(torch.optim.LBFGS, max_iter=4)).guard
    assert guard.history["grad_norm/total"].steps.tolist() == list(range(1, 13))


def test_no_optimizer_is_no_trouble() -> None:
    class Nothing(Plain):
        def configure_optimizers(self) -> None:
            return None

    callback = GradGuard(summary=False)
    with pytest.warns(UserWarning, match="no optimizer"):
        trainer([callback], max_epochs=1).fit(Nothing(), loader())
    assert callback.guard is None


def test_two_fits_of_one_trainer_are_one_run() -> None:
    callback = GradGuard(every_n_steps=5, summary=False)
    fit, module = trainer([callback], max_epochs=1), Plain()
    fit.fit(module, loader())
    fit.fit_loop.max_epochs = 2
    fit.fit(module, loader())
    assert callback.guard.history["grad_norm/total"].steps.tolist() == list(range(1, 25))
    other = trainer([callback], max_epochs=1)
    other.fit(Plain(), loader())
    assert callback.guard.steps == {"optimizer": 12}
