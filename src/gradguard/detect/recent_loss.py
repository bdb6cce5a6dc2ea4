"""The loss over the last hundred steps, and where it began: what a new loss is held against."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any, final

from gradguard.detect.block import Block
from gradguard.detect.state import from_plain, to_plain

FIRST = 10  # steps at which the loss is that of the start
WINDOW = 100  # losses that the level is taken from
EVERY = 10  # losses after which it is taken anew
SIGMA = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
Z90 = 1.2816  # deviations that nine in ten of its values lie below


@final
class Beginning:
    """How many losses there were, and the mean of the first ten."""

    def __init__(self) -> None:
        self.count, self.first = 0, 0.0

    def observe(self, loss: float) -> None:
        """Take in a finite loss."""
        self.count += 1
        self.first += loss if self.count <= FIRST else 0.0

    @property
    def start(self) -> float:
        """Mean of the first ten."""
        return self.first / min(self.count, FIRST) if self.count else math.nan

    def state_dict(self) -> dict[str, Any]:
        """Give all of it."""
        return _state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        _load(self, state)


@final
class RecentLoss:
    """Median and spread of the last hundred losses, taken anew after each ten.

    Attributes:
        level: median of the last hundred; NaN before the first ten.
        spread: a robust standard deviation of them: by the median absolute deviation or, where that is more, by the
            highest tenth, so that a long tail is not taken for spikes.
    """

    def __init__(self) -> None:
        self.beginning = Beginning()
        self.window: deque[float] = deque(maxlen=WINDOW)
        self.level = self.spread = math.nan

    @property
    def count(self) -> int:
        """Losses so far."""
        return self.beginning.count

    @property
    def start(self) -> float:
        """Mean of the first ten."""
        return self.beginning.start

    def observe(self, loss: float) -> None:
        """Take in a finite loss."""
        self.beginning.observe(loss)
        self.window.append(loss)
        if self.count % EVERY == 0:
            self.level = median(self.window)
            ordered = sorted(self.window)
            above = (ordered[int(0.9 * len(ordered))] - self.level) / Z90
            self.spread = max(SIGMA * median(abs(x - self.level) for x in ordered), above)

    def state_dict(self) -> dict[str, Any]:
        """Give all of it."""
        return _state_of(self)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        _load(self, state)


def feeding(recent: RecentLoss, block: Block) -> Callable[[float], None]:
    """Give what takes the finite losses of a block in, up to a step, where the last time ended; overflows left out."""
    counted = block.has_loss & ~block.overflow & block.losses.isfinite()
    losses = deque(zip(block.steps[counted].tolist(), block.losses[counted].tolist(), strict=True))

    def up_to(step: float) -> None:
        while losses and losses[0][0] <= step:
            recent.observe(losses.popleft()[1])

    return up_to


def _state_of(what: Beginning | RecentLoss) -> dict[str, Any]:
    return {name: to_plain(value) for name, value in vars(what).items()}


def _load(what: Beginning | RecentLoss, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        setattr(what, name, from_plain(value, getattr(what, name)))
