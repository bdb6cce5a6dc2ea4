"""Gates of recurrent layers that stand still."""

from __future__ import annotations

from typing import NamedTuple, final

from torch import Tensor

from gradguard.detect.base import AbstractDetector, PerPlace, told
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.in_time import GateStatistics, Profile
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom

CANDIDATES = frozenset({"g", "n", "h", "a"})  # letters of what a tanh makes
ALWAYS = 0.99  # share of the steps at which a unit's gate has to be saturated
_MEANS = {
    "forget gate shut": "the cells keep nothing from one step to the next",
    "forget gate stuck open": "the cells only add up, and have grown until their tanh is saturated",
    "nothing gets in": "over a whole sequence the cells take in less than a tenth of one step's news",
    "output gate shut": "what the cells hold does not get out, and no gradient gets in",
    "all gates saturated": "they sit at one end or the other, as the input says, and hardly any gradient passes them",
}


@saved
class _Stuck(NamedTuple):
    """What was found in a layer at a sample."""

    layer: str
    what: str
    units: float
    mean: float


@final
class SaturatedGates(AbstractDetector):
    """A gate of an LSTM, a GRU or one of their relatives is saturated at all steps, in most of its units.

    Rule, at ``patience`` sampled steps on end, for at least ``units`` of the units of a layer, each at 99 % of all
    steps of all sequences (saturated is where a sigmoid's slope is less than a tenth of its largest):

    - the forget gate (the gate that keeps the state: torch's z in a GRU) is shut;
    - it is open, and as large a share of all cell states is saturated under its tanh: an open forget gate alone is
      how long memories are made, by ``init.chrono_`` among others;
    - the output gate is shut;
    - nothing gets in: the mean of the input gate (of 1 less the gate that keeps the state, where that is all there is)
      times the steps of the sequence is less than a tenth, wherever it saturates.

    Or of all gates with a sigmoid, two at least, ``all_gates`` of the values or more are saturated, at whichever end:
    inputs or weights are too large. Long memories, by ``init.chrono_`` among others, leave the output gate alone.

    What it can't see: single dead units among many that live; input gates that are nearly shut, which ``init.chrono_``
    makes; gates of cells of your own.

    Args:
        units: share of the units, in (0, 1].
        all_gates: share of the values of each gate, in (0, 1].
        patience: samples on end, >= 1.
    """

    def __init__(self, units: float = 0.5, *, all_gates: float = 0.6, patience: int = 3) -> None:
        if not (0 < units <= 1 and 0 < all_gates <= 1):
            raise ValueError(f"SaturatedGates needs units and all_gates in (0, 1], got {units=}, {all_gates=}.")
        self.units, self.all_gates, self.patience = units, all_gates, patience
        self.persistence = PerPlace(patience)
        self.optimizer = ""
        self.stuck: dict[str, _Stuck] = {}

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        self.optimizer = block.layout.optimizer
        for sample in block.in_time:
            for profile in (p for profiles in sample.modules.values() for p in profiles):
                found = {one.what: one for one in self._stuck(profile)}
                for what in _MEANS:
                    place = f"{profile.layer}: {what}"
                    self.persistence.observe(place, sample.step, what in found)
                    if what in found:
                        self.stuck[place] = found[what]

    def _stuck(self, profile: Profile) -> list[_Stuck]:
        gates = {gate.gate: gate for gate in profile.gates}
        found = []
        keep, out = gates.get(profile.keeps or ""), gates.get("o")
        if keep is not None:
            found.append(("forget gate shut", keep, _share(keep.shut)))
            open_ = _share(keep.open) if profile.saturated_cells >= self.units else 0.0
            found.append(("forget gate stuck open", keep, open_))
            found.append(("nothing gets in", keep, _share_shut_out(gates.get("i"), keep, profile.length)))
        if out is not None:
            found.append(("output gate shut", out, _share(out.shut)))
        stuck = [
            _Stuck(profile.layer, what, share, float(gate.mean.mean()))
            for what, gate, share in found
            if share >= self.units
        ]
        sigmoids = [gate for letter, gate in gates.items() if letter not in CANDIDATES]
        least = min((gate.saturated for gate in sigmoids), default=0.0)
        if len(sigmoids) > 1 and least >= self.all_gates:
            means = [float(gate.mean.mean()) for gate in sigmoids]
            stuck.append(_Stuck(profile.layer, "all gates saturated", least, sum(means) / len(means)))
        return stuck

    def findings(self) -> tuple[Finding, ...]:
        """Say which gates stand still, and in how many units."""
        spells = self.persistence.spells()
        if not spells:
            return ()
        chosen, span = told(spells)
        stuck = [self.stuck[place] for place in chosen]
        kinds = list(dict.fromkeys(one.what for one in stuck))
        finding = Finding(
            Symptom.SATURATED_GATES,
            Severity.WARNING if span[2] else Severity.INFO,
            tuple(dict.fromkeys(one.layer for one in stuck)),
            self.optimizer,
            *span,
            {"share of units": {place: self.stuck[place].units for place in chosen}}
            | {"mean of the gate": {place: self.stuck[place].mean for place in chosen}},
            "; ".join(f"{kind}: {_MEANS[kind]}" for kind in kinds).capitalize() + ".",
        )
        return (finding,)


def _share(steps_H: Tensor) -> float:
    """Share of the units that are saturated nearly always."""
    return float((steps_H >= ALWAYS).double().mean())


def _share_shut_out(taking: GateStatistics | None, keep: GateStatistics, length: float) -> float:
    """Share of the units that take in next to nothing over a sequence."""
    taken = taking.mean if taking is not None else 1 - keep.mean
    return float((taken * length < 0.1).double().mean())
