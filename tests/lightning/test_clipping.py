"""GradientClipping in a real Trainer does what a plain loop with the same clipper does; what is logged of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

from gradguard import Guard, SkipBudgetError, Symptom
from gradguard.clip import AdaGC, Ema, NormClip, PerModule, ZClip
from gradguard.detect import default_detectors
from gradguard.lightning import GradGuard, GradientClipping, GradientMonitor
from gradguard.recover import Skip
from tests.lightning.loops import Manual, Plain, Two, loader, trainer, weights
from tests.lightning.test_strict import rows

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory", "ignore:Experiment logs directory", "ignore:Be aware that when using .ckpt_path."
)


def clipper() -> ZClip:
    return ZClip(1.0, baseline=Ema(warmup=5), max_norm=8.0)


class Spiking(Plain):
    def loss(self, batch: Any) -> Tensor:
        return super().loss(batch) * (20 if batch[0][0, 0] > 1 else 1)


class ManualSpiking(Manual, Spiking):
    pass


def plain_loop(epochs: int = 2, accumulate: int = 1, make: Any = Spiking, **options: Any) -> list[Tensor]:
    """The same training without a Trainer, clipped by hand."""
    module = make(**options)
    optimizer, clip, batches = module.configure_optimizers(), clipper(), list(loader()) * epochs
    for start in range(0, len(batches), accumulate):
        optimizer.zero_grad()
        for batch in batches[start : start + accumulate]:
            (module.loss(batch) / accumulate).backward()
        clip.clip_(module)
        optimizer.step()
    return weights(module)


def scaled() -> list[Any]:
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=1000))]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [Spiking, ManualSpiking])
def test_final_weights_are_those_of_a_plain_loop(kind: type[Plain], fused: bool) -> None:
    module, callback = kind(fused=fused), GradientClipping(clipper(), every_n_steps=4)
    trainer([callback]).fit(module, loader())
    for a, b in zip(weights(module), plain_loop(fused=fused), strict=True):
        assert torch.equal(a, b)
    assert callback.guard.steps == {"optimizer": 24}
    assert 0 < callback.guard._tracks.named(None, "").clipped < 24


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("kind", [Spiking, ManualSpiking])
def test_16_mixed_gives_the_weights_of_float32(kind: type[Plain], fused: bool) -> None:
    module = kind(fused=fused, lr=0.01)
    trainer([GradientClipping(clipper())], plugins=scaled()).fit(module, loader())
    found, expected = (torch.cat([w.flatten() for w in some]) for some in (weights(module), plain_loop(lr=0.01)))
    assert (found - expected).norm() <= 1e-3 * expected.norm()


def test_accumulation_and_an_optimizer_with_a_closure() -> None:
    module = Spiking()
    trainer([GradientClipping(clipper())], accumulate_grad_batches=3).fit(module, loader())
    for a, b in zip(weights(module), plain_loop(accumulate=3), strict=True):
        torch.testing.assert_close(a, b)
    module, callback = Plain(torch.optim.LBFGS), GradientClipping(ZClip())
    trainer([callback], max_epochs=1).fit(module, loader())
    assert callback.guard._tracks.named(None, "").treatment.clip._state.baseline.seen == 12


def test_bf16_and_float64() -> None:
    for precision in ("bf16-mixed", "bf16-true", "64-true"):
        callback = GradientClipping(NormClip(0.1))
        trainer([callback], precision=precision).fit(Spiking(), loader())
        clipped = callback.guard.history["grad_norm/clipped"].high
        assert clipped.max() <= 0.1 * 1.01


@pytest.mark.parametrize("order", [0, 1])
def test_beside_other_callbacks_it_shares_the_guard_and_their_order_changes_nothing(order: int) -> None:
    callbacks = [GradGuard(every_n_steps=4, summary=False), GradientClipping(clipper(), every_n_steps=4)]
    callbacks += [GradientMonitor(every_n_steps=4)]
    callbacks = callbacks[::-1] if order else callbacks
    module = Spiking()
    trainer(callbacks).fit(module, loader())
    for a, b in zip(weights(module), plain_loop(), strict=True):
        assert torch.equal(a, b)
    (guard,) = {id(callback.guard): callback.guard for callback in callbacks}.values()
    kinds = [type(detector).__name__ for detector in guard._tracks.named(None, "").detectors]
    assert len(kinds) == len(set(kinds)) == len(default_detectors())


def test_each_optimizer_has_its_own_state_and_a_dict_names_those_that_clip() -> None:
    callback = GradientClipping(clipper())
    trainer([callback], max_epochs=3).fit(Two(), loader())
    seen = [track.treatment.clip._state.baseline for track in callback.guard._tracks]
    assert [one.seen for one in seen] == [36, 36]
    assert seen[0].mean != seen[1].mean
    callback = GradientClipping({"critic": NormClip(0.01)})
    trainer([callback]).fit(Two(), loader())
    assert "critic/clip/coefficient" in callback.guard.history
    assert "generator/clip/coefficient" not in callback.guard.history


def test_what_is_logged(tmp_path: Path) -> None:
    callback = GradientClipping(PerModule({"net.0": NormClip(0.3), "*": clipper()}))
    fit = trainer([callback], logger=CSVLogger(tmp_path, version="v"), log_every_n_steps=6)
    fit.fit(Spiking(), loader())
    history = callback.guard.history
    table = [row for row in rows(tmp_path / "lightning_logs" / "v") if row["gradguard/clip/rate"]]
    assert len(table) == 4
    coefficient, after = history["clip/coefficient"].last, history["grad_norm/clipped"].last
    for i, row in enumerate(table):
        here = slice(6 * i, 6 * i + 6)
        assert float(row["gradguard/clip/coefficient"]) == pytest.approx(coefficient[here].min().item(), rel=1e-6)
        assert float(row["gradguard/clip/rate"]) == pytest.approx((coefficient[here] < 1).double().mean().item())
        assert float(row["gradguard/grad_norm/clipped"]) == pytest.approx(after[6 * i + 5].item(), rel=1e-6)
        assert float(row["gradguard/clip/threshold/net.0"]) == pytest.approx(0.3)
        part = history["clip/coefficient/net.0"].last[here].min().item()
        assert float(row["gradguard/clip/coefficient/net.0"]) == pytest.approx(part, rel=1e-6)
        assert "gradguard/clip/coefficient/_" in row  # the pattern is *
    before = history["grad_norm/total"].last
    torch.testing.assert_close(after, before.double() * coefficient, rtol=1e-5, atol=0)


def test_a_trainer_that_clips_and_a_second_clipper_are_refused() -> None:
    fit = trainer([GradientClipping(ZClip())], gradient_clip_val=1.0)
    message = r"clipped twice: Trainer\(gradient_clip_val=1.0\) and GradientClipping\(ZClip\). Remove one of them."
    with pytest.raises(ValueError, match=message):
        fit.fit(Spiking(), loader())
    fit = trainer([GradGuard(clip=NormClip(1.0)), GradientClipping(ZClip())])
    with pytest.raises(ValueError, match=r"twice: GradGuard\(clip=NormClip.*and GradientClipping\(clip=ZClip"):
        fit.fit(Spiking(), loader())
    with pytest.raises(TypeError, match=r"got 1.0. Write NormClip\(1.0\)"):
        GradientClipping(1.0)
    with pytest.raises(TypeError, match="got None"):
        GradientClipping(None)
    trainer([GradientClipping(ZClip())], gradient_clip_val=1.0).validate(Spiking(), loader(2), verbose=False)


def test_a_step_hook_of_the_module_sees_raw_gradients_and_a_clip_of_its_own_comes_first() -> None:
    class Own(Spiking):
        seen = 0.0

        def on_before_optimizer_step(self, optimizer: Any) -> None:
            self.seen = max(self.seen, float(nn.utils.get_total_norm([p.grad for p in self.parameters()])))

        def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
            nn.utils.clip_grad_norm_(self.parameters(), 0.5)

    module, callback = Own(), GradientClipping(NormClip(0.1))
    trainer([callback]).fit(module, loader())
    history = callback.guard.history
    assert module.seen == pytest.approx(history["grad_norm/total"].high.max().item(), rel=1e-5)
    assert module.seen > 1
    assert history["grad_norm/clipped"].high.max() == pytest.approx(0.1, rel=1e-4)
    assert history["clip/coefficient"].low.min() == pytest.approx(0.2, rel=1e-3)  # of what the module left


def test_a_resumed_fit_goes_on_bit_for_bit_in_the_middle_of_the_warm_up(tmp_path: Path) -> None:
    def fit(folder: Path, ckpt: Path | None = None, save: bool = False) -> tuple[LightningModule, Guard]:
        callbacks = [GradientClipping(AdaGC(warmup=20, absolute=0.5), every_n_steps=5)]
        saving = [ModelCheckpoint(folder, "at-{epoch}", every_n_epochs=1, save_top_k=-1)] if save else []
        module = Spiking()
        run = trainer([*callbacks, *saving], max_epochs=4, enable_checkpointing=save, default_root_dir=folder)
        run.fit(module, loader(), ckpt_path=ckpt)
        return module, callbacks[0].guard

    whole, guard = fit(tmp_path / "a", save=True)
    resumed, other = fit(tmp_path / "b", ckpt=tmp_path / "a" / "at-epoch=0.ckpt")
    assert all(torch.equal(a, b) for a, b in zip(weights(whole), weights(resumed), strict=True))
    states = [one.state_dict()["tracks"]["optimizer"]["treatment"] for one in (guard, other)]
    assert repr(states[0]) == repr(states[1])
    assert torch.equal(guard.history["clip/coefficient"].last, other.history["clip/coefficient"].last)


class WithNorm(Plain):
    """A BatchNorm, and NaN in some batches."""

    bad: tuple[int, ...] = (5,)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))
        self.before: list[Tensor] = []
        self.after: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if batch_idx - 1 in self.bad and not self.after:
            self.after = self.everything()
        if batch_idx in self.bad:
            self.before = self.before or self.everything()
            batch = (batch[0] * torch.nan, batch[1])
        return self.loss(batch)

    def everything(self) -> list[Tensor]:
        state = self.trainer.optimizers[0].state
        return [*weights(self), *(v.clone() for s in state.values() for v in s.values() if isinstance(v, Tensor))]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("plugins", [None, scaled])
def test_a_nan_batch_is_skipped_truly(plugins: Any, fused: bool) -> None:
    torch.manual_seed(0)
    module, callback = WithNorm(optimizer=torch.optim.AdamW, fused=fused), GradientClipping(ZClip(), recover=Skip(2))
    trainer([callback], max_epochs=1, plugins=plugins and plugins()).fit(module, loader())
    assert len(module.before) == len(module.after) > 10
    assert all(torch.equal(a, b) for a, b in zip(module.before, module.after, strict=True))
    assert callback.guard.history["skipped"].steps.tolist() == [6]
    assert [finding.symptom for finding in callback.guard.diagnose()] == [Symptom.NON_FINITE]


def test_a_strict_fit_puts_up_with_skips_until_the_budget_is_spent(tmp_path: Path) -> None:
    module = WithNorm()
    trainer([GradGuard(strict=True, recover=Skip(1), every_n_steps=2)], default_root_dir=tmp_path).fit(module, loader())
    module.bad = (3, 4, 5)
    with pytest.raises(SkipBudgetError, match="Step 5 of optimizer is number 2 in a row"):
        trainer([GradGuard(strict=True, recover=Skip(1))], default_root_dir=tmp_path).fit(module, loader())
    assert all(value.isfinite().all() for value in module.state_dict().values())


def test_clipped_too_often_is_found_where_the_limit_is_far_too_low() -> None:
    callback = GradientClipping(NormClip(1e-4), every_n_steps=20)
    trainer([callback], max_epochs=12).fit(Spiking(), loader())
    (finding,) = callback.guard.diagnose()
    assert finding.symptom is Symptom.CLIPPED_TOO_OFTEN
    callback = GradientClipping(ZClip(), every_n_steps=20)
    trainer([callback], max_epochs=12).fit(Spiking(), loader())
    assert callback.guard.diagnose() == []
