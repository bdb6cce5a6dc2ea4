"""Units that no input makes fire."""

from __future__ import annotations

from typing import final

from torch import Tensor

from gradguard.detect.activations import Units
from gradguard.detect.symptom import Symptom
from gradguard.detect.units import AbstractUnitsDetector, Useless


@final
class DeadUnits(AbstractUnitsDetector):
    """Most units of a layer are shut for every input, by a ReLU or one of its relatives: no gradient revives them.

    Rule and arguments are those of :class:`AbstractUnitsDetector`; a unit does nothing where the slope of its
    activation is zero, or less than a hundredth of the largest, on all entries of a batch.

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

    def useless(self, units: Units) -> Tensor:
        """Say which did not fire."""
        return units.silent

    def explain(self, worst: Useless, layers: int) -> str:
        """Say how many, and what follows."""
        where = "a layer" if layers == 1 else f"the worst of {layers} layers"
        return (
            f"{worst.useless} of {worst.units} units of {where} never fired behind their {worst.activation}, on "
            f"{worst.entries} entries on end: no gradient passes them, and nothing brings them back."
        )
