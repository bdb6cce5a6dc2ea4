"""How far steps go on moving the weights, and whether the loss falls by it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean, median
from typing import Any, final

from gradguard.detect.base import Spell
from gradguard.detect.block import Block
from gradguard.detect.state import from_plain, to_plain

EVERY = 50  # steps between two looks
WINDOW = 100  # steps that are looked at
AFTER = 150  # steps, before which weights may still be growing
FALLS = 0.97  # share of a loss, below which it falls


@final
class SteadyMoves:
    """Whether a hundred steps on end moved the weights too far, and got nowhere.

    They did where they moved them by ``limit`` of their norm on average, each counted as 1 at most, and the median of
    the loss in the last half of them is not below 97 % of that in the first half. Where there is no loss, or one of
    several optimizers', from 5/4 of the limit. In healthy programs 0.033 was the most, with the loss of a single
    optimizer, and 0.026 with those of several.
    """

    def __init__(self, limit: float = 0.04) -> None:
        self.limit = limit
        self.moves: deque[float] = deque(maxlen=WINDOW)
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.count = 0
        self.spell: Spell | None = None
        self.largest = 0.0

    def observe(self, block: Block) -> None:
        """Take in the next steps; those that moved nothing on purpose are passed over."""
        if block.moved is None:
            return
        counts = ~block.overflow & ~block.skipped & block.moved.isfinite()
        columns = (block.steps, block.moved.clamp(max=1.0), block.losses, block.has_loss)
        for step, moved, loss, has_loss in zip(*(column[counts].tolist() for column in columns), strict=True):
            self.moves.append(moved)
            self.losses.append(loss if has_loss else math.nan)
            self.count += 1
            if self.count % EVERY == 0 and self.count >= AFTER:
                self._look(step, alone=block.alone)

    def _look(self, step: int, *, alone: bool) -> None:
        average, losses = fmean(self.moves), list(self.losses)
        before, now = losses[: WINDOW // 2], losses[WINDOW // 2 :]
        if alone and all(map(math.isfinite, losses)):
            holds = average >= self.limit and median(now) >= FALLS * median(before) > 0
        else:
            holds = average >= 1.25 * self.limit
        if holds:
            first = step - WINDOW + 1 if self.spell is None else self.spell.first_step
            self.spell, self.largest = Spell(first, step, active=True), max(self.largest, average)
        elif self.spell is not None:
            self.spell = Spell(self.spell.first_step, self.spell.last_step, active=False)

    def state_dict(self) -> dict[str, Any]:
        """Give all of it but the limit."""
        return {name: to_plain(value) for name, value in vars(self).items() if name != "limit"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        for name, value in state.items():
            setattr(self, name, from_plain(value, getattr(self, name)))
