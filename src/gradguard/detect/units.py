"""What the detectors of units that do nothing have in common.

Shape legend: U = units of a layer.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from gradguard.detect.activations import Units
from gradguard.detect.base import AbstractDetector, PerPlace, told
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom


@saved
class Useless(NamedTuple):
    """What was found in a layer at the sample at which it was worst."""

    layer: str
    activation: str
    units: int
    useless: int
    entries: int
    active: float


@saved
class _Seen(NamedTuple):
    """How long each unit of a layer has done nothing: entries of the batches and samples on end, [U] each."""

    entries: Tensor
    samples: Tensor


class AbstractUnitsDetector(AbstractDetector):
    """Counts, in each layer, the units that did nothing at all samples of late.

    A unit counts where it did nothing on every entry of ``samples`` batches on end, ``min_entries`` entries in all: one
    that is sparse but alive fires on some of them. A layer is sick where that holds for at least ``share`` of its
    units, at ``patience`` samples on end that span ``min_steps`` steps; critical where it holds for all of them.

    Args:
        share: of the units of a layer, in (0, 1].
        samples: batches on end, >= 1.
        min_entries: entries on end, >= 1: a unit that fires on one in a hundred passes for one that does not once in
            twenty where 300 are looked at.
        patience: samples, >= 1.
        min_steps: steps between the first and the last of them.
    """

    symptom: ClassVar[Symptom]
    word: ClassVar[str]

    def __init__(
        self, share: float = 0.5, *, samples: int = 4, min_entries: int = 200, patience: int = 3, min_steps: int = 16
    ) -> None:
        if not 0 < share <= 1 or samples < 1 or min_entries < 1 or min_steps < 0:
            raise ValueError(
                f"{type(self).__name__} needs 0 < share <= 1, samples >= 1, min_entries >= 1 and min_steps >= 0, got "
                f"{share=}, {samples=}, {min_entries=}, {min_steps=}."
            )
        self.share, self.samples, self.min_entries = share, samples, min_entries
        self.patience, self.min_steps = patience, min_steps
        self.persistence = PerPlace(patience, share=1.0)
        self.optimizer = ""
        self.seen: dict[str, _Seen] = {}
        self.worst: dict[str, Useless] = {}

    @abstractmethod
    def useless(self, units: Units) -> Tensor:
        """Say which units of a layer did nothing in a sample, bool [U]."""

    def is_flat(self, units: Units) -> bool:
        """Whether a layer is sick whichever of its units did nothing, since hardly any entry has a slope."""
        return False

    @abstractmethod
    def explain(self, worst: Useless, layers: int) -> str:
        """Say what that means."""

    def hearing(self, block: Block) -> Callable[[float], None]:
        """Give what takes in all else of a block that the detector wants to know, up to a step."""
        return lambda step: None

    def severity(self, place: str, worst: Useless) -> Severity:
        """Say how bad it is, as long as it lasts, of a layer."""
        return Severity.CRITICAL if worst.useless == worst.units else Severity.WARNING

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        self.optimizer = block.layout.optimizer
        hear_up_to = self.hearing(block)
        for sample in block.activations:
            hear_up_to(sample.step)
            here = {_place(units): units for units in sample.units}
            for place, units in here.items():
                self.look(sample.step, place, units)
            for place in self.seen.keys() - here.keys():  # a layer that is no longer called is not sick
                self.persistence.observe(place, sample.step, holds=False)
        hear_up_to(math.inf)

    def look(self, step: int, place: str, units: Units) -> None:
        """Take in a layer at a sampled step."""
        now = self.useless(units)
        before = self.seen.get(place)
        if before is None or len(before.entries) != len(now):
            before = _Seen(torch.zeros(len(now), dtype=torch.int64), torch.zeros(len(now), dtype=torch.int64))
        seen = _Seen((before.entries + units.entries) * now, (before.samples + 1) * now)
        self.seen[place] = seen
        for_good = int(((seen.entries >= self.min_entries) & (seen.samples >= self.samples)).sum())
        holds = for_good >= self.share * len(now) or self.is_flat(units)
        self.persistence.observe(place, step, holds)
        if holds and (
            place not in self.worst or for_good / len(now) >= self.worst[place].useless / self.worst[place].units
        ):
            entries = max(int(seen.entries.max()), units.entries)
            self.worst[place] = Useless(units.layer, units.activation, len(now), for_good, entries, units.active)

    def findings(self) -> tuple[Finding, ...]:
        """Say which layers, and how many of their units."""
        spells = {
            place: spell
            for place, spell in self.persistence.spells().items()
            if spell.last_step - spell.first_step >= self.min_steps
        }
        if not spells:
            return ()
        chosen, span = told(spells)
        of = {place: self.worst[place] for place in chosen}
        severity = max((self.severity(place, one) for place, one in of.items()), key=lambda one: one.rank)
        worst = max(of.values(), key=lambda one: one.useless / one.units)
        counts = {one.layer or "(root)": f"{one.useless} of {one.units}" for one in of.values()}
        return (
            Finding(
                self.symptom,
                severity if span[2] else Severity.INFO,
                tuple(dict.fromkeys(one.layer for one in of.values())),
                self.optimizer,
                *span,
                {f"{self.word} units": counts, "entries looked at": worst.entries},
                self.explain(worst, len(chosen)),
            ),
        )


def _place(units: Units) -> str:
    """Name a layer and what stands behind it: of two functions of one layer, one may be well."""
    return f"{units.layer} {units.activation}"
