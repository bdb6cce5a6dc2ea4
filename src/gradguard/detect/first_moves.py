"""How far the first steps of a run moved the weights, and what became of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any, final

import torch

from gradguard.detect.block import Block
from gradguard.detect.state import from_plain, to_plain

STEPS = 50  # the first ones


@final
class FirstMoves:
    """Whether the first 50 steps moved the weights too far, all in all.

    They did where they moved them by ``limit`` of their norm on average, each counted as 1 at most, and the loss shows
    it: three on end were 5 % above the first one on average, and the median of the last ten is above six tenths of it;
    or two are twice as high. Nothing is said of losses below zero. Weights that grow from next to nothing move as far,
    and do no harm. Where there is no loss, or one of several optimizers', from twice the limit.
    """

    def __init__(self, limit: float = 0.05) -> None:
        self.limit = limit
        self.moves: list[float] = []
        self.losses: list[float] = []
        self.last_step = 0
        self.alone = True

    def observe(self, block: Block) -> None:
        """Take in the next steps; those that moved nothing on purpose are passed over."""
        self.alone = block.alone
        if block.moved is None or len(self.moves) >= STEPS:
            return
        counts = ~block.overflow & ~block.skipped & block.moved.isfinite()
        rest = STEPS - len(self.moves)
        losses = torch.where(block.has_loss, block.losses, torch.nan)
        self.moves += block.moved[counts][:rest].clamp(max=1.0).tolist()
        self.losses += losses[counts][:rest].tolist()
        if counts.any():
            self.last_step = int(block.steps[counts][:rest][-1])

    @property
    def average(self) -> float:
        """By how much a step moved the weights."""
        return fmean(self.moves) if self.moves else math.nan

    @property
    def are_too_large(self) -> bool:
        """Whether they were, once all of them were made."""
        if len(self.moves) < STEPS or self.average < self.limit:
            return False
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        if not self.alone or len(losses) < STEPS // 2:
            return self.average >= 2 * self.limit
        first, *after = losses
        rose = max(fmean(three) for three in zip(after, after[1:], after[2:], strict=False)) > 1.05 * first
        return min(losses) >= 0 and ((rose and median(after[-10:]) > 0.6 * first) or sorted(after)[-2] > 2 * first)

    @property
    def bring_nothing(self) -> bool:
        """Whether the loss is above seven tenths of the first one after steps of ``limit`` and more on average.

        The last ten have to be nearly as large: those of weights that grow from next to nothing become ever smaller.
        """
        losses = [loss for loss in self.losses if math.isfinite(loss)]
        if not (self.alone and len(self.moves) == STEPS and len(losses) >= STEPS // 2 and self.average >= self.limit):
            return False
        return (
            min(losses) >= 0 and median(losses[-10:]) > 0.7 * losses[0] and fmean(self.moves[-10:]) > 0.8 * self.limit
        )

    def state_dict(self) -> dict[str, Any]:
        """Give all of it but the limit."""
        return {name: to_plain(value) for name, value in vars(self).items() if name != "limit"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        for name, value in state.items():
            setattr(self, name, from_plain(value, getattr(self, name)))
