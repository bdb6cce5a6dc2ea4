"""The losses that were recorded for the steps to come."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor


@final
class Losses:
    """Sums them up until the step that they belong to: several before one step (accumulation) are averaged."""

    def __init__(self) -> None:
        self.sums: dict[str | None, tuple[Tensor, int]] = {}
        self.at_step = self.sums

    def add(self, loss: Tensor | float, optimizer: str | None) -> None:
        """Take one in, for an optimizer's next step or for whichever steps next. Host sync: none."""
        value = whole(loss) if isinstance(loss, Tensor) else torch.tensor(float(loss), dtype=torch.float32)
        if value.numel() != 1:
            raise ValueError(f"record_loss needs one number, got shape {tuple(value.shape)}. Take its mean first.")
        value = value.reshape(()).to(torch.float32, copy=True)
        before = self.sums.get(optimizer)
        self.sums[optimizer] = (value, 1) if before is None else (before[0] + value, before[1] + 1)

    def take(self, optimizer: str) -> Tensor | None:
        """Give the mean for an optimizer's step, and forget it."""
        sums = self.sums.pop(optimizer, None) or self.sums.pop(None, None)
        return sums[0] / sums[1] if sums else None

    def mark(self) -> None:
        """Note that the step has its loss: what a closure's later evaluations add belongs to no step."""
        self.at_step = dict(self.sums)

    def rewind(self) -> None:
        """Forget what came since the mark."""
        self.sums = self.at_step


def whole(loss: Tensor) -> Tensor:
    """Give the loss as a plain tensor: under ``loss_parallel`` it is a DTensor."""
    value: Tensor = loss.full_tensor() if hasattr(loss, "full_tensor") else loss
    return value.detach()
