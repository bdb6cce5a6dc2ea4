"""Amazon SageMaker Debugger: its built-in rules for training, with the defaults that its developer guide documents.

Source: awsdocs/amazon-sagemaker-developer-guide at 1c4d5ff, ``doc_source/debugger-built-in-rules.md``. The code of the
rules is not public. Where the guide leaves a choice, it is made so that more is found:

- Tensors are saved at the first step and 19 times after it. By default they are saved every 500 steps, which is twice
  in most runs here.
- ``WeightUpdateRatio`` sees the weights before and after a saved step, as the guide asks for, and not as the shipped
  configuration has it.
- ``PoorWeightInitialization`` sees each of its first 10 steps. Any of its three conditions is enough.
- ReLUs, tanhs and sigmoids are known by the type of their module, not by whether its name has ``relu`` in it. Functions
  without a module are not seen there either, nor is what is inside an ``nn.LSTM``.
- A unit is one entry of a layer's output, over the batch.
- ``AllZero`` looks at gradients and ``UnchangedTensor`` at weights; there, one has to say at what.

Left out: ``TensorVariance`` (has no default thresholds), ``Overfit`` and ``Overtraining`` (ask for a validation loss),
``ClassImbalance``, ``Confusion``, ``CheckInputImages`` and ``NLPSequenceRatio`` (ask for labels and inputs), and what
is about several runs, stalled jobs or trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.program import Loop, Program

SAVES = 20
VANISHING = 1e-7
INACTIVITY, LAYER = 0.01, 0.5  # DeadRelu, SaturatedActivation
RANGES: Mapping[type[nn.Module], tuple[float, float]] = {nn.Tanh: (-9.4999, 9.4999), nn.Sigmoid: (-23.0, 16.99999)}
LARGE, SMALL, EPSILON = 10.0, 1e-8, 1e-9  # WeightUpdateRatio
LOSS_STEPS = 10  # LossNotDecreasing
VARIANCES, SPREAD, PATIENCE, FIRST = 10.0, 0.001, 5, 10  # PoorWeightInitialization
UNCHANGED, RTOL, ATOL = 3, 1e-5, 1e-8  # UnchangedTensor

MEANS: Mapping[str, frozenset[str]] = {
    "VanishingGradient": frozenset({"vanishing_depth", "vanishing_time", "no_gradient"}),
    "ExplodingTensor": frozenset({"exploding_depth", "exploding_time", "non_finite", "update_too_large"}),
    "DeadRelu": frozenset({"dead_units"}),
    "SaturatedActivation": frozenset({"saturated_units", "saturated_gates"}),
    "PoorWeightInitialization": frozenset({"poor_initialisation"}),
    "WeightUpdateRatio, large": frozenset({"update_too_large"}),
    "WeightUpdateRatio, small": frozenset({"update_too_small"}),
    "LossNotDecreasing": frozenset({"slow_convergence", "oscillating_loss", "loss_spike"}),
    "AllZero": frozenset({"no_gradient", "dead_units"}),
    "UnchangedTensor": frozenset({"update_too_small", "no_gradient"}),
}
QUIET = ("VanishingGradient", "ExplodingTensor", "DeadRelu", "SaturatedActivation", "WeightUpdateRatio, large")


def vanishes(gradient: Tensor) -> bool:
    """VanishingGradient, of one tensor."""
    return bool(gradient.abs().mean() < VANISHING)


def is_all_zero(tensor: Tensor) -> bool:
    """AllZero, of one tensor."""
    return not bool(tensor.any())


def is_dead(output: Tensor) -> bool:
    """DeadRelu, of one layer's output: [batch, ...]."""
    active = (output > 0).flatten(1).double().mean(0)
    return bool((active < INACTIVITY).double().mean() > LAYER)


def is_saturated(given: Tensor, within: tuple[float, float]) -> bool:
    """SaturatedActivation, of one layer's input: [batch, ...]."""
    active = ((given > within[0]) & (given < within[1])).flatten(1).double().mean(0)
    return bool((active < INACTIVITY).double().mean() > LAYER)


def update_ratio(before: Tensor, after: Tensor) -> float:
    """WeightUpdateRatio, of one weight."""
    return float((after - before).norm() / (before.norm() + EPSILON))


def is_unchanged(values: Sequence[Tensor]) -> bool:
    """UnchangedTensor, of one tensor at its last saved steps."""
    last = values[-UNCHANGED:]
    return len(last) == UNCHANGED and all(torch.allclose(last[-1], v, rtol=RTOL, atol=ATOL) for v in last[:-1])


def falls_not(losses: Mapping[int, float], step: int) -> bool:
    """LossNotDecreasing, at a saved step: against the last saved step that lies far enough back."""
    earlier = [s for s in losses if s <= step - LOSS_STEPS]
    return bool(earlier) and not losses[step] < losses[max(earlier)]


def is_poorly_initialised(variances: Sequence[float], gradients: Sequence[Tensor], losses: Sequence[float]) -> bool:
    """PoorWeightInitialization: inputs of ReLUs of unlike variance, narrow gradients, or a loss that rests.

    Args:
        variances: of the inputs of the ReLUs at a step.
        gradients: at that step.
        losses: of all steps until then.
    """
    if variances and max(variances) > VARIANCES * min(variances):
        return True
    ends = torch.tensor([0.05, 0.95])
    spreads = (g.float().flatten().quantile(ends.to(g.device)).diff() for g in gradients)
    if any(bool(spread < SPREAD) for spread in spreads):
        return True
    return len(losses) > PATIENCE and min(losses[-PATIENCE:]) >= min(losses[:-PATIENCE])


class Debugger:
    """Watches a run with hooks on modules and optimizers, and on no tensor.

    Attributes:
        raised: step at which each rule first fired.
    """

    def __init__(self) -> None:
        self.raised: dict[str, int] = {}
        self.losses: dict[int, float] = {}  # at saved steps
        self.first_losses: list[float] = []
        self.variances: list[float] = []
        self.weights: dict[str, Tensor] = {}
        self.saved_weights: dict[str, list[Tensor]] = {}
        self.handles: list[Any] = []

    def start(self, program: Program, loop: Loop) -> None:
        self.interval = max(program.steps // SAVES, 1)
        named = [(f"{name}.{n}", p) for name, m in loop.models.items() for n, p in m.named_parameters()]
        self.parameters = [p for _, p in named]
        self.trained = {n: p for n, p in named if p.requires_grad and "weight" in n}
        for optimizer in loop.optimizers.values():
            self.handles.append(optimizer.register_step_pre_hook(self._gradients))
        for module in (module for model in loop.models.values() for module in model.modules()):
            if isinstance(module, nn.ReLU | nn.ReLU6 | nn.Tanh | nn.Sigmoid):
                self.handles.append(module.register_forward_pre_hook(self._inputs))
            if isinstance(module, nn.ReLU | nn.ReLU6):
                self.handles.append(module.register_forward_hook(self._outputs))
        self._prepare(1)

    def record(self, step: int, loss: Tensor, optimizer: str | None) -> None:
        if self.early:
            self.first_losses.append(float(loss))
        if self.saves:
            self.losses[step] = float(loss)
            self._raise("ExplodingTensor", not bool(loss.isfinite()))

    def after(self, step: int) -> None:
        if self.saves:
            for name, before in self.weights.items():
                now = self.trained[name].detach()
                ratio = update_ratio(before, now)
                self._raise("ExplodingTensor", not bool(now.isfinite().all()))
                self._raise("WeightUpdateRatio, large", ratio > LARGE)
                self._raise("WeightUpdateRatio, small", ratio < SMALL)
                values = self.saved_weights.setdefault(name, [])
                values[:] = [*values[1 - UNCHANGED :], before]
                self._raise("UnchangedTensor", is_unchanged(values))
            self._raise("LossNotDecreasing", step in self.losses and falls_not(self.losses, step))
        self._prepare(step + 1)

    def end(self) -> None:
        for handle in self.handles:
            handle.remove()

    def _prepare(self, step: int) -> None:
        self.now, self.saves, self.early = step, (step - 1) % self.interval == 0, step <= FIRST
        self.variances.clear()
        self.weights = {n: p.detach().clone() for n, p in self.trained.items()} if self.saves else {}

    def _raise(self, rule: str, holds: bool) -> None:
        if holds:
            self.raised.setdefault(rule, self.now)

    @torch.no_grad()
    def _gradients(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if not self.saves and not self.early:
            return
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        found = [p.grad for p in self.parameters if p.grad is not None and id(p) in own]
        gradients = [g.coalesce().values() if g.is_sparse else g for g in found]
        if self.early and "PoorWeightInitialization" not in self.raised:
            poor = is_poorly_initialised(self.variances, gradients, self.first_losses)
            self._raise("PoorWeightInitialization", poor)
        if self.saves:
            self._raise("ExplodingTensor", not all(bool(g.isfinite().all()) for g in gradients))
            self._raise("VanishingGradient", any(map(vanishes, gradients)))
            self._raise("AllZero", any(map(is_all_zero, gradients)))

    def _inputs(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if not (self.saves or self.early) or not torch.is_grad_enabled() or args[0].dim() < 2:
            return  # not saved, or no step of training: somebody scores the model
        given = args[0].detach()
        if isinstance(module, nn.ReLU | nn.ReLU6):
            self.variances.append(float(given.var()))
        elif self.saves:
            within = next(limits for kind, limits in RANGES.items() if isinstance(module, kind))
            self._raise("SaturatedActivation", is_saturated(given, within))

    def _outputs(self, module: nn.Module, args: Any, output: Tensor) -> None:
        if self.saves and torch.is_grad_enabled() and output.dim() >= 2:
            self._raise("DeadRelu", is_dead(output.detach()))
