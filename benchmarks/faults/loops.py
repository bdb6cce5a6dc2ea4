"""The usual loop: one model, one optimizer, batches drawn from a split. What a program plants, it hands in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop

from benchmarks.faults.data import Split
from benchmarks.faults.program import Loop, Record
from gradguard.clip import AbstractRescaler

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": lambda params, lr: SGD(params, lr=lr, momentum=0.9),
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
    "nesterov": lambda params, lr: SGD(params, lr=lr, momentum=0.9, nesterov=True),
}


def supervised(
    model: nn.Module,
    split: Split,
    lr: float,
    *,
    optimizer: str = "adam",
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    batch: int = 64,
    accumulate: int = 1,
    forgets: bool = False,
    params: Any = None,
    schedule: Callable[[int], float] | None = None,
    on_batch: Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    on_gradients: Callable[[int, nn.Module], Any] | None = None,
    predict: Callable[[nn.Module, Tensor], Tensor] | None = None,
    clip: AbstractRescaler | None = None,
) -> Loop:
    """Build the loop.

    Args:
        model: takes a batch of inputs, gives logits (class numbers as targets) or predictions.
        split: what to learn.
        lr: learning rate.
        optimizer: a key of ``OPTIMIZERS``.
        loss: of the output and the target; cross entropy or the squared error by default.
        batch: examples of a batch.
        accumulate: batches of a step.
        forgets: never sets the gradients to zero.
        params: what the optimizer gets; all that is trainable by default.
        schedule: factor of the learning rate at a step.
        on_batch: changes a batch before it is used, given the step.
        on_gradients: is called between ``backward()`` and the step.
        predict: how the output to be scored is had from the model; calling it by default.
        clip: see :class:`Loop`.
    """
    classifies = not split.y.is_floating_point()
    loss = loss or (nn.functional.cross_entropy if classifies else nn.functional.mse_loss)
    predict = predict or (lambda model, x: model(x))
    chosen = OPTIMIZERS[optimizer](params or [p for p in model.parameters() if p.requires_grad], lr=lr)
    base = [group["lr"] for group in chosen.param_groups]

    def step(number: int, record: Record) -> None:
        for group, rate in zip(chosen.param_groups, base, strict=True):
            group["lr"] = rate * (schedule(number) if schedule else 1.0)
        if not forgets:
            chosen.zero_grad()
        for _ in range(accumulate):
            at = torch.randint(len(split.x), (batch,))
            x, y = split.x[at], split.y[at]
            x, y = on_batch(number, x, y) if on_batch else (x, y)
            value = loss(model(x), y)
            record(value, None)
            (value / accumulate).backward()
        if on_gradients:
            on_gradients(number, model)
        chosen.step()

    def scored(x: Tensor, y: Tensor) -> float:
        return score_of(lambda: predict(model, x), [model], y)

    return Loop(
        {"": model},
        {"optimizer": chosen},
        step,
        lambda: scored(split.x_test, split.y_test),
        lambda: scored(split.x[:512], split.y[:512]),
        clip,
    )


@torch.no_grad()
def score_of(predict: Callable[[], Tensor], models: list[nn.Module], y: Tensor) -> float:
    """Give the accuracy, corrected for guessing, or the share of variance explained, at least 0; 0 where it is NaN."""
    modes = [model.training for model in models]
    for model in models:
        model.eval()
    found = predict()
    for model, mode in zip(models, modes, strict=True):
        model.train(mode)
    if y.is_floating_point():
        score = 1 - float((found - y).square().mean() / (y - y.mean(0)).square().mean())
    else:
        right = float((found.argmax(1) == y).double().mean())
        guess = float(y.unique(return_counts=True)[1].max() / y.numel())
        score = (right - guess) / (1 - guess)
    return max(score, 0.0) if score == score and bool(found.isfinite().all()) else 0.0
