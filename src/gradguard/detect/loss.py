"""What the detectors that look at the loss have in common."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import ClassVar

from gradguard.detect.base import AbstractDetector
from gradguard.detect.block import Block


class AbstractLossDetector(AbstractDetector):
    """Sees the recorded losses one by one, with how far the step moved the weights.

    Steps without a recorded loss, overflow steps and losses that are not finite are passed over; where no loss is ever
    recorded, nothing is said. Nor is it where several optimizers are watched: the losses of a game (a GAN's) rise and
    fall by nature.
    """

    def __init__(self) -> None:
        self.optimizer, self.alone = "", True

    judges_games: ClassVar[bool] = False

    @abstractmethod
    def see(self, step: int, loss: float, moved: float) -> None:
        """Take in one step: its loss, and the norm of its change over that of the weights (NaN where not known)."""

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        self.alone = block.alone
        if not (block.alone or self.judges_games):
            return
        counted = block.has_loss & ~block.overflow & block.losses.isfinite()
        steps, losses = block.steps[counted].tolist(), block.losses[counted].tolist()
        moved = [math.nan] * len(steps) if block.moved is None else block.moved[counted].tolist()
        for step, loss, distance in zip(steps, losses, moved, strict=True):
            self.see(step, loss, distance)
