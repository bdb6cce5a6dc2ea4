"""The peers of the clipping benchmark: pinned packages, and published rules where there is no package to install.

A contender is made for a model, or for a list of its parameters, and called after ``backward()`` and before ``step()``.
The rules are written from their papers and from what their sources do, with the names and defaults of those.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib.util
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

PACKAGES = ("timm==1.0.31", "zclip==1.0.0", "autoclip==0.2.1", "pytorch-optimizer==4.1.0", "nfnets-pytorch==0.1.3")

Target = nn.Module | Iterable[nn.Parameter]
Make = Callable[[Target], Callable[[], Any]]
Step = Callable[[Tensor], Any]  # a whole training step on a batch of 4 rows
Train = Callable[[nn.Module], Step]


def ensure_packages(folder: Path) -> None:
    """Install the peers into ``folder``, each into its own, and make them importable; one that is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        target = folder / package
        if not target.exists():
            print(f"Installing {package} ...", file=sys.stderr, flush=True)
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            with tempfile.TemporaryDirectory(dir=folder) as half:  # what is cut off half way is not taken for a package
                subprocess.run([*command, "--target", f"{half}/done", package], check=True)
                Path(half, "done").rename(target)
        sys.path.append(str(target))


def timm_agc() -> ModuleType:
    """Load the one file of timm that clips: the package as a whole needs torchvision."""
    path = next(path for entry in sys.path if (path := Path(entry) / "timm/utils/agc.py").exists())
    spec = importlib.util.spec_from_file_location("timm_agc", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parameters(target: Target) -> Iterable[nn.Parameter]:
    """Give the parameters of a model; anything else as it came, generators too."""
    return target.parameters() if isinstance(target, nn.Module) else target


def called(clip: Callable[..., Any], *args: Any, **kwargs: Any) -> Make:
    """Make a contender of a function that takes the parameters first."""
    return lambda target: lambda: clip(parameters(target), *args, **kwargs)


def norm(gradients: Iterable[Tensor]) -> Tensor:
    """Global norm in float64."""
    return torch.stack([g.double().norm() for g in gradients]).norm()


class AutoClip:
    """Seetharaman et al. 2020, Alg. 1, as in pseeth/autoclip: the percentile of all norms so far, this one included."""

    def __init__(self, target: Target, percentile: float = 10.0) -> None:
        self.target, self.percentile, self.history = target, percentile, []

    def step(self) -> None:
        gradients = [p.grad for p in parameters(self.target) if p.grad is not None]
        self.history.append(math.sqrt(sum(g.norm(2).item() ** 2 for g in gradients)))
        with np.errstate(invalid="ignore"):
            threshold = float(np.percentile(self.history, self.percentile))
        nn.utils.clip_grad_norm_(parameters(self.target), threshold)


class AdaGC:
    """Wang et al. 2025, Alg. 1: global clip and the least norm so far in warm-up, then an EMA for each tensor."""

    def __init__(self, target: Target, warmup: int = 100, limit: float = 1.0, ratio: float = 1.05, beta: float = 0.98):
        self.target, self.warmup, self.limit, self.ratio, self.beta = target, warmup, limit, ratio, beta
        self.gamma, self.steps = {}, 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        live = [p for p in parameters(self.target) if p.grad is not None]
        scale = torch.clamp(self.limit / norm(p.grad for p in live), max=1.0)
        for p in live:
            if self.steps <= self.warmup:
                p.grad.mul_(scale)
                self.gamma[p] = torch.minimum(self.gamma.get(p, p.grad.norm()), p.grad.norm())
            else:
                p.grad.mul_(torch.clamp(self.ratio * self.gamma[p] / p.grad.norm(), max=1.0))
                self.gamma[p] = self.beta * self.gamma[p] + (1 - self.beta) * p.grad.norm()


class Ring:
    """Percentile clipping of bitsandbytes until 0.49: per parameter a ring of 100 squared norms, zeros at first."""

    def __init__(self, target: Target, percentile: int = 5) -> None:
        self.target, self.percentile, self.rings, self.steps = target, percentile, {}, 0

    @torch.no_grad()
    def step(self) -> None:
        self.steps += 1
        for p in parameters(self.target):
            ring = self.rings.setdefault(p, torch.zeros(100))
            ring[self.steps % 100] = p.grad.square().sum()
            p.grad.mul_(torch.clamp(ring.sort().values[self.percentile].sqrt() / p.grad.norm(), max=1.0))


class GradientStabilizer:
    """GradientStabilizer (arXiv 2502.17055v3), Alg. 1: every norm is replaced by m / sqrt(v)."""

    def __init__(self, target: Target, gamma1: float = 0.6, gamma2: float = 0.999) -> None:
        self.target, self.gamma1, self.gamma2, self.m, self.v = target, gamma1, gamma2, 0.0, 0.0

    @torch.no_grad()
    def step(self) -> None:
        gradients = [p.grad for p in parameters(self.target)]
        length = norm(gradients)
        self.m = self.gamma1 * self.m + (1 - self.gamma1) * length
        self.v = self.gamma2 * self.v + (1 - self.gamma2) * length**2
        for g in gradients:
            g.div_(length).mul_(self.m / self.v**0.5)


@torch.no_grad()
def composer_agc(params: Iterable[nn.Parameter], limit: float = 0.01) -> None:
    """AGC of mosaicml/composer: a weight's norm has no floor."""
    for p in params:
        dims = tuple(range(1, p.ndim)) or None
        length = [torch.linalg.vector_norm(t, dim=dims, keepdim=True) for t in (p, p.grad)]
        p.grad.mul_((limit * length[0] / length[1]).nan_to_num(nan=1.0).clamp(max=1.0))


def composer_value(params: Iterable[nn.Parameter], limit: float) -> None:
    """``clipping_type="value"`` of mosaicml/composer under FSDP: the whole gradient by its largest entry."""
    nn.utils.clip_grad_norm_(params, limit, norm_type=math.inf)


def timm_without_head(model: nn.Module) -> Callable[[], Any]:
    """AGC of timm with ``exclude_head=True``: the head is the last two parameters."""
    return partial(timm_agc().adaptive_clip_grad, list(model.parameters())[:-2])


class SkipBySigma(torch.optim.SGD):
    """SkipStepOptimizer of allenai/OLMo-core: 6 sigma of the last 128, once there are 64; the update times 0 skips.

    There, too, what it has seen is kept in lists that are no part of the optimizer's ``state_dict()``.
    """

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 0.1, window: int = 128, sigma: float = 6.0) -> None:
        super().__init__(params, lr=lr)
        self.window, self.sigma, self.norms = window, sigma, []

    @torch.no_grad()
    def step(self) -> None:
        params = self.param_groups[0]["params"]
        latest = norm(p.grad for p in params)
        self.norms = [*self.norms, latest][-self.window - 1 :]
        factor = torch.ones(())
        if len(self.norms) >= self.window // 2:
            deviation, mean = torch.std_mean(torch.stack(self.norms[:-1]))
            factor = (latest - mean <= self.sigma * deviation).float()
        for p in params:
            p.sub_(self.param_groups[0]["lr"] * p.grad * factor)


def zero_non_finite(params: Iterable[nn.Parameter]) -> None:
    """Zero all gradients where one is not finite: NeMo's ``skip_nan_grad``, and icefall's ScaledAdam with its norm."""
    live = [p.grad for p in params if p.grad is not None]
    if not all(g.isfinite().all() for g in live):
        for g in live:
            g.zero_()


def none_if_non_finite(params: Iterable[nn.Parameter]) -> None:
    """Take all gradients away where one is not finite: a true skip, by hand."""
    params = list(params)
    if not all(p.grad.isfinite().all() for p in params if p.grad is not None):
        for p in params:
            p.grad = None


class ApplyIfFinite:
    """``apply_if_finite`` of optax: skips, but lets the sixth non-finite gradient in a row through."""

    def __init__(self, target: Target, most: int = 5) -> None:
        self.target, self.most, self.count = target, most, 0

    def step(self) -> None:
        finite = all(p.grad.isfinite().all() for p in parameters(self.target))
        self.count = 0 if finite else self.count + 1
        if 0 < self.count <= self.most:
            none_if_non_finite(parameters(self.target))


def shrink_recurrent(params: Iterable[nn.Parameter]) -> None:
    """Pascanu's RNN.py: where the norm is not finite, 0.02 W is the recurrent weights' gradient, 0 that of the rest."""
    params = list(params)
    if not norm(p.grad for p in params).isfinite():
        for i, p in enumerate(params):
            p.grad = 0.02 * p.detach() if i == 0 else torch.zeros_like(p)


def stepped(peer: Callable[..., Any], **kwargs: Any) -> Make:
    """Make a contender of a class whose ``step()`` clips what it was made for."""
    return lambda target: peer(target, **kwargs).step


def zclip(**kwargs: Any) -> Make:
    """Make a contender of the package zclip, which takes a module at each step."""
    from zclip import ZClip

    return lambda target: partial(ZClip(**kwargs).step, target)


def autoclip(kind: str, **kwargs: Any) -> Make:
    """Make a contender of the package autoclip: ``QuantileClip`` or ``StandardClip``."""
    import autoclip.torch

    return lambda target: getattr(autoclip.torch, kind)(parameters(target), **kwargs).step


def moments(kind: str, **kwargs: Any) -> Make:
    """Make a contender of an optimizer of pytorch-optimizer that clips inside: what reaches its first moment counts."""
    import pytorch_optimizer

    def make(target: Target) -> Callable[[], None]:
        params = list(parameters(target))
        optimizer = getattr(pytorch_optimizer, kind)(params, lr=0.0, betas=(0.0, 0.999), **kwargs)

        def step() -> None:
            optimizer.step()
            for p in params:
                p.grad = optimizer.state[p]["exp_avg"].reshape_as(p).clone()

        return step

    return make


def sgd(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=1.0)


def adamw(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.1, weight_decay=0.0)


def fused(params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(params, lr=1.0, fused=True)


def loop(
    clip: Make = lambda target: lambda: None,
    optimizer: Callable[..., torch.optim.Optimizer] = adamw,
    *,
    guard: Callable[..., object] | None = None,
    scale: float = 0.0,
    unscale: bool = False,
    early: bool = False,
    micro_batches: int = 1,
) -> Train:
    """A training loop: ``clip`` or the guard does what there is to do; with a loss scale, under a GradScaler."""

    def train(model: nn.Module) -> Step:
        over, scaler = optimizer(model.parameters()), torch.amp.GradScaler("cpu", init_scale=scale or 1.0)
        scaler = scaler if scale else torch.amp.GradScaler("cpu", enabled=False)
        if guard:
            guard(model, over, scaler if scale else None)
        call = clip(model)

        def step(x: Tensor) -> float:
            over.zero_grad()
            if early:
                call()
            for part in x.chunk(micro_batches):
                scaler.scale(model(part).square().mean() / micro_batches).backward()
                if unscale:
                    scaler.unscale_(over)
                if not early:
                    call()
            scaler.step(over)
            scaler.update()
            return scaler.get_scale()

        return step

    return train


def spike_loop(**settings: Any) -> Train:
    """A loop with Lightning's SpikeDetection, which looks at the loss once the step is made."""
    from lightning_fabric import Fabric
    from lightning_fabric.utilities.spike import SpikeDetection

    def train(model: nn.Module) -> Step:
        optimizer, fabric = torch.optim.SGD(model.parameters(), lr=0.01), Fabric(accelerator="cpu", devices=1)
        folder, batch_idx = tempfile.TemporaryDirectory(), count()
        detection = SpikeDetection(exclude_batches_path=folder.name, **settings)

        def step(x: Tensor) -> None:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            detection.on_train_batch_end(fabric, loss.detach(), x, next(batch_idx))

        step.folder = folder  # it goes when the loop does
        return step

    return train


def lightning_trainer(model: nn.Module) -> Step:
    """A Trainer with ``gradient_clip_val=1.0``, started anew for each batch."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def training_step(self, batch: Tensor) -> Tensor:
            return self.model(batch).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adamw(self.parameters())

    off = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}

    def step(x: Tensor) -> None:
        trainer = pl.Trainer(max_steps=1, accelerator="cpu", devices=1, gradient_clip_val=1.0, **off)
        trainer.fit(Module(), torch.utils.data.DataLoader([x], batch_size=None))

    return step


def nan_monitor(model: nn.Module) -> Step:
    """NaNMonitor of mosaicml/composer: an error where the loss is NaN, before its step."""
    optimizer = adamw(model.parameters())

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        loss = model(x).square().mean()
        if loss.isnan():
            raise RuntimeError("Train loss contains a NaN.")
        loss.backward()
        optimizer.step()

    return step


def zclip_callback(model: nn.Module, *_: Any) -> Callable[[Any], Any]:
    from zclip import ZClipLightningCallback

    return partial(ZClipLightningCallback(max_grad_norm=None).on_before_optimizer_step, None, model)


def spike_detection() -> Any:
    from lightning_fabric.utilities.spike import SpikeDetection

    return SpikeDetection()


def adagc_loop(model: nn.Module) -> Step:
    """A loop with the AdaGC of pytorch-optimizer, an Adam that clips inside."""
    import pytorch_optimizer

    return loop(optimizer=partial(pytorch_optimizer.AdaGC, lr=1e-3, weight_decay=0.0))(model)


def nfnets_agc(ignore_agc: Sequence[str] | None = None) -> Make:
    """Make a contender of nfnets-pytorch, whose import needs a name that Python 3.10 removed: given back for it."""
    collections.Iterable = collections.abc.Iterable
    try:
        from nfnets import AGC
    finally:
        del collections.Iterable

    def make(target: nn.Module) -> Callable[[], Any]:
        optimizer = torch.optim.SGD(target.parameters(), lr=0.0)
        if ignore_agc is None:
            return AGC(target.parameters(), optimizer).step
        return AGC(target.parameters(), optimizer, model=target, ignore_agc=ignore_agc).step

    return make


def kozistr_agc(target: nn.Module) -> Callable[[], Any]:
    """The function ``agc`` of pytorch-optimizer, on the weight of a module."""
    from pytorch_optimizer.optimizer.agc import agc

    return lambda: target.weight.grad.copy_(agc(target.weight.detach(), target.weight.grad))
