"""Units that sit at the ends of a bounded activation."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor

from gradguard.detect.activations import Units
from gradguard.detect.block import Block
from gradguard.detect.finding import Severity
from gradguard.detect.recent_loss import RecentLoss, feeding
from gradguard.detect.symptom import Symptom
from gradguard.detect.units import AbstractUnitsDetector, Useless

FLAT = 0.75  # of a layer's entries, without a slope; below a third in layers that learn
LEARNT = 0.2  # of the first loss, below which units may sit where they like
LONG = 150  # losses after which an output's activation is judged


@final
class SaturatedUnits(AbstractUnitsDetector):
    """Most units of a layer sit at an end of their sigmoid or tanh, where it has no slope, for nearly every input.

    Rule and arguments are those of :class:`AbstractUnitsDetector`; a unit does nothing where the slope of its
    activation is less than a tenth of the largest at 95 % of the entries of a batch: beyond 0.974 or below 0.026 of a
    sigmoid, beyond 0.949 of a tanh. A layer is sick as well where that holds for ``FLAT`` of the entries of all its
    units together, at either end as the input says, while the loss is not below half of its start: a network that
    is sure of what it has learnt saturates, too. Gates of recurrent modules have a detector of their own. Of an
    activation that the model ends with only the second rule holds, after ``LONG`` losses of the only optimizer: one
    that sits at its ends and has not learnt by it can't reach its targets, or has overshot them.

    What it can't see: an output's activation that is called outside of the model; activations inside a fused or
    compiled module. A code that is meant to become binary is told like others.

    Source: SageMaker Debugger and DeepDiagnosis, whose limits for what goes in (9.5 and 5) are absolute, and whose
    share of a layer is 50 %.
    """

    symptom = Symptom.SATURATED_UNITS
    word = "saturated"

    def __init__(
        self, share: float = 0.5, *, samples: int = 4, min_entries: int = 200, patience: int = 3, min_steps: int = 16
    ) -> None:
        super().__init__(share, samples=samples, min_entries=min_entries, patience=patience, min_steps=min_steps)
        self.loss, self.alone = RecentLoss(), True

    def hearing(self, block: Block) -> Callable[[float], None]:
        """Give what takes in the losses."""
        self.alone = block.alone
        return feeding(self.loss, block)

    def useless(self, units: Units) -> Tensor:
        """Say which were at an end; of an output none, since they may well be meant to be there."""
        return units.saturated & torch.tensor(not units.is_output)

    def is_flat(self, units: Units) -> bool:
        """Whether most of its entries are at an end."""
        has_learnt = 0 < self.loss.level < 0.5 * self.loss.start
        is_known = not units.is_output or (self.alone and self.loss.count >= LONG)
        return units.is_bounded and units.active <= 1 - FLAT and not has_learnt and is_known

    def severity(self, place: str, worst: Useless) -> Severity:
        """Say how bad it is, by whether the network has learnt all the same."""
        has_learnt = self.alone and 0 < self.loss.level < LEARNT * self.loss.start
        return Severity.INFO if has_learnt else super().severity(place, worst)

    def explain(self, worst: Useless, layers: int) -> str:
        """Say how many, and what follows."""
        where = "a layer" if layers == 1 else f"the worst of {layers} layers"
        if worst.useless < self.share * worst.units:
            return (
                f"{1 - worst.active:.0%} of what the units of {where} give sits at an end of their {worst.activation}: "
                "less than a tenth of the gradient passes there."
            )
        return (
            f"{worst.useless} of {worst.units} units of {where} sit at an end of their {worst.activation} for nearly "
            "every input: less than a tenth of the gradient passes, and they hardly tell inputs apart."
        )
