"""Loops that train recurrent networks, and what is changed about them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.faults.data import Split, digits
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop
from benchmarks.faults.recurrent_data import chain, chain_losses
from benchmarks.faults.recurrent_models import Reader


def rows() -> Split:
    """Give digits, a row at a step."""
    return digits("rows")


def read(
    lr: float,
    *,
    split: Callable[[], Split] = rows,
    kind: str = "lstm",
    hidden: int = 24,
    fill: Callable[[Reader], Any] | None = None,
    batch: int = 32,
    loss: Callable[[Reader], Callable[[Tensor, Tensor], Tensor]] | None = None,
    loop: dict[str, Any] | None = None,
    **options: Any,
) -> Loop:
    """Build a reader of sequences and its loop.

    Args:
        lr: learning rate.
        split: gives the data.
        kind: see :class:`Reader`.
        hidden: the same.
        fill: changes weights at the start.
        batch: sequences of a batch.
        loss: makes the loss, given the model.
        loop: more arguments of :func:`supervised`.
        options: more of the reader.
    """
    data = split()
    inputs = data.x.shape[-1] if data.x.is_floating_point() else int(data.x.max()) + 1
    outputs = data.y.shape[-1] if data.y.is_floating_point() else int(data.y.max()) + 1
    model = Reader(kind, inputs, hidden, outputs, **options)
    if fill:
        fill(model)
    return supervised(model, data, lr, batch=batch, loss=loss(model) if loss else None, **(loop or {}))


def write(lr: float, **options: Any) -> Loop:
    """Build a model of text; its score is 1 where its loss is the chain's entropy, 0 at that of its symbols."""
    made = read(lr, split=chain, every=True, embeds=True, **options)
    model, split = made.models[""], chain()
    often, known = chain_losses()

    @torch.no_grad()
    def score(x: Tensor, y: Tensor) -> float:
        value = float(nn.functional.cross_entropy(model(x)[:, :, 1:], y[:, 1:]))
        return min(max((often - value) / (often - known), 0.0), 1.0) if math.isfinite(value) else 0.0

    return replace(
        made,
        score=lambda: score(split.x_test, split.y_test),
        train_score=lambda: score(split.x[:512], split.y[:512]),
    )


def gate(number: int, value: float) -> Callable[[Reader], None]:
    """Set the biases of one gate: i, f, g, o of an LSTM, r, z, n of a GRU."""

    @torch.no_grad()
    def fill(model: Reader) -> None:
        hidden = model.head.in_features
        for name, bias in model.layer.named_parameters():
            if "bias" in name:
                bias[number * hidden : (number + 1) * hidden] = value / 2

    return fill


def bumped(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Give arguments of the loop that change batches 375 to 378 and make the learning rate 200 times larger there."""
    among = range(375, 379)
    return {
        "on_batch": lambda step, x, y: change(x, y) if step in among else (x, y),
        "schedule": lambda step: 200.0 if step in among else 1.0,
    }


def clipped(step: int, model: nn.Module) -> None:
    """Clip the norm of all gradients at 1."""
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def fading(steps: int) -> Callable[[int], float]:
    """Lower the learning rate to 0 along a cosine."""
    return lambda step: 0.5 + 0.5 * math.cos(math.pi * step / steps)
