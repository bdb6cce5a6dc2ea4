"""Units that no input makes fire."""

from __future__ import annotations

from typing import final

from torch import Tensor

from gradguard.detect.activations import Units
from gradguard.detect.finding import Severity
from gradguard.detect.symptom import Symptom
from gradguard.detect.units import AbstractUnitsDetector, Useless


@final
class DeadUnits(AbstractUnitsDetector):
    """Most units of a layer are shut for every input, by a ReLU or one of its relatives: no gradient revives them.

    Rule and arguments are those of :class:`AbstractUnitsDetector`; a unit does nothing where the slope of its
    activation is zero, or less than a hundredth of the largest, on all entries of a batch. Info in layers of which the
    same share of all entries was active at each sample so far, and some: these select the k strongest units of many,
    and those that are never among them are no fault of the training.

    Of an activation that the model ends with, all units count or none: parts of an output may be meant to be zero.

    What it can't see: units behind a ``LeakyReLU`` (which never die), activations inside a fused or compiled module,
    and whether the layer has more units than the task needs: half of them may be dead in a network that is well.

    Source: AUTOTRAINER (70 % of zero gradients); half of a layer, as SageMaker Debugger has it, small autoencoders
    reach that are well.
    """

    symptom = Symptom.DEAD_UNITS
    word = "dead"

    def __init__(
        self, share: float = 0.7, *, samples: int = 4, min_entries: int = 200, patience: int = 3, min_steps: int = 16
    ) -> None:
        super().__init__(share, samples=samples, min_entries=min_entries, patience=patience, min_steps=min_steps)
        self.active: dict[str, tuple[float, float]] = {}  # least and largest share of each layer so far

    def look(self, step: int, place: str, units: Units) -> None:
        """Take in a layer at a sampled step."""
        super().look(step, place, units)
        least, most = self.active.get(place, (units.active, units.active))
        self.active[place] = min(least, units.active), max(most, units.active)

    def severity(self, place: str, worst: Useless) -> Severity:
        """Say how bad it is, by whether the layer selects."""
        least, most = self.active[place]
        return Severity.INFO if 0 < most < least + 1e-6 else super().severity(place, worst)

    def useless(self, units: Units) -> Tensor:
        """Say which did not fire; of an output all or none, since parts of it may well be meant to be zero."""
        return units.silent & units.silent.all() if units.is_output else units.silent

    def explain(self, worst: Useless, layers: int) -> str:
        """Say how many, and what follows."""
        where = "a layer" if layers == 1 else f"the worst of {layers} layers"
        return (
            f"{worst.useless} of {worst.units} units of {where} never fired behind their {worst.activation}, on "
            f"{worst.entries} entries on end: no gradient passes them, and nothing brings them back."
        )
