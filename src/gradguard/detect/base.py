"""The family of detectors, and the two small states that they are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

from gradguard.detect.block import Block
from gradguard.detect.finding import Finding


class AbstractDetector(ABC):
    """Watches the steps of one optimizer and says what is wrong with them.

    Every detector: says nothing about a healthy run; finds the same whatever the blocks are in which the steps arrive;
    takes no overflow step and no non-finite number into a statistic; raises each symptom once, with its first and
    last step; keeps a state whose size does not grow with the number of steps; can be copied and pickled.
    ``tests/contracts/test_detectors.py`` holds every subclass to this. Subclasses are final: to vary one, wrap it.
    """

    @abstractmethod
    def observe(self, block: Block) -> None:
        """Take in the next steps."""

    @abstractmethod
    def findings(self) -> tuple[Finding, ...]:
        """What has been found so far."""


@dataclass(frozen=True)
class Spell:
    """Since when, until when, and whether still."""

    first_step: int
    last_step: int
    active: bool


class Persistence:
    """Turns a condition that flickers into one spell: raised when it held at most of the last ``patience`` steps.

    The spell begins at the first step of the window at which the condition held. It is over once the condition holds
    at fewer than half of them, and goes on, with its old first step, if it is raised again.

    Args:
        patience: how many steps to look back over.
        share: at how many of them the condition has to hold, in (0, 1].
    """

    def __init__(self, patience: int, share: float = 0.8) -> None:
        if patience < 1 or not 0 < share <= 1:
            raise ValueError(f"Persistence needs patience >= 1 and 0 < share <= 1, got {patience} and {share}.")
        self.share = share
        self.window: deque[tuple[int, bool]] = deque(maxlen=patience)
        self.spell: Spell | None = None

    def observe(self, step: int, holds: bool) -> bool:
        """Take in one step; say whether the spell is on."""
        self.window.append((step, holds))
        held = [s for s, h in self.window if h]
        full = len(self.window) == self.window.maxlen
        active = self.spell is not None and self.spell.active
        if full and len(held) >= self.share * len(self.window):
            first = self.spell.first_step if self.spell else held[0]
            self.spell = Spell(first, held[-1], active=True)
        elif self.spell is not None and active:
            still = len(held) >= 0.5 * len(self.window)
            self.spell = Spell(self.spell.first_step, held[-1] if held else self.spell.last_step, active=still)
        return self.spell is not None and self.spell.active


class PerParameter:
    """A statistic of each parameter that keeps its values when parameters are added or reordered."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.names: tuple[str, ...] = ()
        self.values = torch.zeros(0, dtype=torch.float64, device="cpu")

    def of(self, names: tuple[str, ...]) -> Tensor:
        """Give the values in the order of ``names``: a new parameter has the start value."""
        if names != self.names:
            known = dict(zip(self.names, self.values.tolist(), strict=True))
            self.values = torch.tensor([known.get(name, self.start) for name in names], dtype=torch.float64)
            self.names = names
        return self.values
