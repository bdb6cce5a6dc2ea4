"""The family of detectors, and the two small states that they are built from."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradguard.detect.block import Block
from gradguard.detect.finding import Finding
from gradguard.detect.state import from_plain, saved, to_plain

EARLY = 30  # steps below which nothing found means nothing: warm-up and patience of rules that look at every step


class AbstractDetector(ABC):
    """Watches the steps of one optimizer and says what is wrong with them.

    Every detector: says nothing about a healthy run; finds the same whatever the blocks are in which the steps arrive;
    takes no overflow step and no non-finite number into a statistic; raises each symptom once, with its first and
    last step; keeps a state whose size does not grow with the number of steps; can be copied and pickled; goes on from
    its ``state_dict()`` as if nothing had happened.
    ``tests/contracts/test_detectors.py`` holds every subclass to this. Subclasses are final: to vary one, wrap it.
    """

    @abstractmethod
    def observe(self, block: Block) -> None:
        """Take in the next steps."""

    @abstractmethod
    def findings(self) -> tuple[Finding, ...]:
        """What has been found so far."""

    def state_dict(self) -> dict[str, Any]:
        """Give what was seen so far in plain containers, numbers and tensors.

        An attribute named like an argument of ``__init__`` is a setting and stays out; all others are state.
        """
        settings = inspect.signature(type(self)).parameters
        return {name: to_plain(value) for name, value in vars(self).items() if name not in settings}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what another detector of this class has seen; the settings stay one's own."""
        for name, value in state.items():
            setattr(self, name, from_plain(value, getattr(self, name, None)))


@saved
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

    def state_dict(self) -> dict[str, Any]:
        """Give the window and the spell."""
        return {"window": to_plain(self.window), "spell": to_plain(self.spell)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over, as many steps of the window as this one looks back over."""
        self.window, self.spell = from_plain(state["window"], self.window), from_plain(state["spell"])


def told(spells: Mapping[str, Spell]) -> tuple[dict[str, Spell], tuple[int, int, bool]]:
    """Give the spells that a finding tells, those that are on or else all; first step, last step, whether one is on.

    Raises:
        ValueError: there is none.
    """
    active = {place: spell for place, spell in spells.items() if spell.active}
    chosen = active or dict(spells)
    first, last = min(s.first_step for s in chosen.values()), max(s.last_step for s in chosen.values())
    return chosen, (first, last, bool(active))


class PerPlace:
    """A :class:`Persistence` for each of some places, by name."""

    def __init__(self, patience: int, share: float = 0.8) -> None:
        Persistence(patience, share)  # refuses what can't be
        self.patience, self.share = patience, share
        self.places: dict[str, Persistence] = {}

    def observe(self, place: str, step: int, holds: bool) -> bool:
        """Take in one step at a place; say whether its spell is on."""
        if place not in self.places:
            self.places[place] = Persistence(self.patience, self.share)
        return self.places[place].observe(step, holds)

    def spell(self, place: str) -> Spell | None:
        """Give a place's spell, if there ever was one."""
        return self.places[place].spell if place in self.places else None

    def spells(self) -> dict[str, Spell]:
        """Give all spells there ever were, by place."""
        return {place: one.spell for place, one in self.places.items() if one.spell is not None}

    def state_dict(self) -> dict[str, Any]:
        """Give those of all places."""
        return {place: one.state_dict() for place, one in self.places.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.places = {}
        for place, saved_one in state.items():
            self.places[place] = Persistence(self.patience, self.share)
            self.places[place].load_state_dict(saved_one)


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

    def state_dict(self) -> dict[str, Any]:
        """Give the values and whose they are."""
        return {"names": to_plain(self.names), "values": to_plain(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take them over."""
        self.names, self.values = from_plain(state["names"]), from_plain(state["values"])
