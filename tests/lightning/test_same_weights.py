"""With the callback and without it: the same final weights, bit for bit, in every mode of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule
from pytorch_lightning.callbacks import StochasticWeightAveraging
from pytorch_lightning.plugins import MixedPrecision

from gradguard.lightning import GradGuard, GradientMonitor
from tests.lightning.loops import Manual, Plain, Two, loader, trainer, weights


class WithDropout(Plain):
    def loss(self, batch: Any) -> torch.Tensor:
        return super().loss((torch.nn.functional.dropout(batch[0], 0.3), batch[1]))


class Overflowing(Plain):
    """One batch in five overflows in fp16."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch) * (1e38 if batch_idx % 5 == 4 else 1.0)


class Skipping(Plain):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor | None:
        return None if batch_idx % 3 == 1 else self.loss(batch)


class Configured(Plain):
    def __init__(self, callbacks: list[Callback]) -> None:
        super().__init__()
        self.own_callbacks = callbacks

    def configure_callbacks(self) -> list[Callback]:
        return self.own_callbacks


class Compiled(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="aot_eager")


class LateParameters(Plain):
    def on_train_epoch_start(self) -> None:
        if self.current_epoch == 1:
            self.optimizers().add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})


def scaled() -> list[Any]:
    return [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4))]


MODES: dict[str, tuple[Callable[[], LightningModule], dict[str, Any]]] = {
    "automatic": (Plain, {}),
    "momentum and clipping": (lambda: Plain(momentum=0.9), {"gradient_clip_val": 0.5}),
    "value clipping": (Plain, {"gradient_clip_val": 0.1, "gradient_clip_algorithm": "value"}),
    "adamw, foreach": (lambda: Plain(torch.optim.AdamW, foreach=True), {}),
    "adamw, fused": (lambda: Plain(torch.optim.AdamW, fused=True), {}),
    "lbfgs": (lambda: Plain(torch.optim.LBFGS), {}),
    "dropout": (WithDropout, {}),
    "accumulation": (Plain, {"accumulate_grad_batches": 5}),
    "accumulation with clipping": (Plain, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.5}),
    "training_step returns None": (Skipping, {}),
    "manual": (Manual, {}),
    "two optimizers": (Two, {}),
    "bf16-mixed": (Plain, {"precision": "bf16-mixed"}),
    "bf16-true": (Plain, {"precision": "bf16-true"}),
    "64-true": (Plain, {"precision": "64-true"}),
    "16-mixed": (Plain, {"plugins": scaled}),
    "16-mixed with overflows": (Overflowing, {"plugins": scaled}),
    "16-mixed, clipping": (Overflowing, {"plugins": scaled, "gradient_clip_val": 0.5}),
    "16-mixed, accumulation": (Overflowing, {"plugins": scaled, "accumulate_grad_batches": 3}),
    "16-mixed, fused": (lambda: Overflowing(torch.optim.Adam, fused=True), {"plugins": scaled}),
    "16-mixed, manual": (Manual, {"plugins": scaled}),
    "validation in the epoch": (Plain, {"val_check_interval": 5, "limit_val_batches": 2, "num_sanity_val_steps": 1}),
    "averaged weights": (Plain, {"extra": lambda: StochasticWeightAveraging(swa_lrs=1e-2), "max_epochs": 4}),
    "fast_dev_run": (Plain, {"fast_dev_run": 3}),
    "barebones": (Plain, {"barebones": True}),
    "compiled": (Compiled, {}),
    "parameters that come later": (LateParameters, {}),
    "stops in the middle": (Plain, {"max_steps": 17}),
}


def final(
    make: Callable[[], LightningModule], callbacks: list[Callback], options: dict[str, Any], tmp_path: Any
) -> list[torch.Tensor]:
    module = make()
    torch.manual_seed(7)
    options = {key: value() if callable(value) else value for key, value in options.items()}
    extra = [options.pop("extra")] if "extra" in options else []
    fit = trainer([*callbacks, *extra], default_root_dir=tmp_path, **options)
    fit.fit(module, loader(), loader(3, seed=2))
    return [*weights(module), torch.randn(3)]  # the random numbers that come next are the same ones, too


@pytest.mark.filterwarnings("ignore:.*barebones", "ignore:.*no .validation_step.", "ignore:.*returned .None.")
@pytest.mark.parametrize("mode", MODES)
def test_final_weights_are_bit_identical(mode: str, tmp_path: Any) -> None:
    make, options = MODES[mode]
    plain = final(make, [], options, tmp_path)
    busy = [GradientMonitor(every_n_steps=3, histograms=True), GradGuard(every_n_steps=3, prog_bar=True)]
    for callbacks in ([GradGuard(every_n_steps=4)], busy):
        watched = final(make, callbacks, options, tmp_path)
        assert all(torch.equal(a, b) for a, b in zip(plain, watched, strict=True))
        assert callbacks[0].guard is not None
        assert callbacks[0].guard.closed
        assert sum(callbacks[0].guard.steps.values()) >= 3


def test_from_configure_callbacks(tmp_path: Any) -> None:
    plain = final(Plain, [], {}, tmp_path)
    callback = GradGuard(every_n_steps=4)
    assert all(
        torch.equal(a, b) for a, b in zip(plain, final(lambda: Configured([callback]), [], {}, tmp_path), strict=True)
    )
    assert callback.guard.steps == {"optimizer": 24}


def test_validate_test_and_predict_are_left_alone(tmp_path: Any) -> None:
    callback, module = GradGuard(), Plain()
    fit = trainer([callback], default_root_dir=tmp_path)
    fit.validate(module, loader(2), verbose=False)
    fit.test(module, loader(2), verbose=False)
    fit.predict(module, loader(2))
    assert callback.guard is None
    assert callback.state_dict() == {}
