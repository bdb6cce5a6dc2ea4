"""Whether the loss still falls, and whether it ever fell by much: from a few means of the run so far."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any, final

from torch import Tensor

POINTS = 96  # most means that are kept
FIRST = 10  # steps at which the loss is that of the start
EARLY = (100, 200)  # steps by which a fit of what is simple (an output's mean) is over in most runs


@final
class LossCourse:
    """Means of the loss over neighbouring steps, fewer than 96: where they run out, pairs are joined."""

    def __init__(self) -> None:
        self.width = 1
        self.means: list[float] = []
        self.sum, self.count = 0.0, 0  # of the mean that is not complete
        self.steps = 0
        self.first = self.early = 0.0  # sums over the first steps, and over the early ones

    def observe(self, losses: Tensor) -> None:
        """Take in the losses of the next steps, on the host; what is not finite is left out."""
        for loss in losses[losses.isfinite()].tolist():
            self.steps += 1
            self.first += loss if self.steps <= FIRST else 0.0
            self.early += loss if EARLY[0] < self.steps <= EARLY[1] else 0.0
            self.sum, self.count = self.sum + loss, self.count + 1
            if self.count == self.width:
                self.means.append(self.sum / self.count)
                self.sum, self.count = 0.0, 0
            if len(self.means) == POINTS:  # an even number: no mean is left over
                self.means = [(a + b) / 2 for a, b in zip(self.means[::2], self.means[1::2], strict=True)]
                self.width *= 2

    @property
    def start(self) -> float:
        """Mean over the first steps."""
        return self.first / min(self.steps, FIRST) if self.steps else math.nan

    @property
    def level(self) -> float:
        """Median over the last third of the run: a spike is not in it."""
        return self._third(2)

    @property
    def falls(self) -> bool:
        """Whether the last third of the run is at least 5 % below both thirds before it; so it is taken to at first."""
        before = min(self._third(0), self._third(1))
        return not self.level >= before - 0.05 * abs(before)

    @property
    def stays(self) -> bool:
        """Whether the last third of the run is within 5 % of the first one."""
        return self._third(2) > 0.95 * self._third(0) > 0

    def _third(self, which: int) -> float:
        third = len(self.means) // 3
        rest = len(self.means) - 3 * third
        part = self.means[rest + which * third : rest + (which + 1) * third]
        return median(part) if part else math.nan

    @property
    def has_learnt(self) -> bool:
        """Whether it is below a tenth of the start, or below half of what it was once the first steps were over."""
        if self.level < 0.1 * self.start:
            return True
        return self.steps > 2 * EARLY[1] and self.level < 0.5 * self.early / (EARLY[1] - EARLY[0])

    def state_dict(self) -> dict[str, Any]:
        """Give all of it."""
        return {**vars(self), "means": list(self.means)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        for name, value in state.items():
            setattr(self, name, list(value) if name == "means" else value)
