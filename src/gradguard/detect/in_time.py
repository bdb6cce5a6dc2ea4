"""A recurrent layer over the steps of its sequences: how the gradient fades, and how open the gates are.

Shape legend: T = time, L = lags, G = gates, H = hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from gradguard.detect.html import profile_html
from gradguard.functional import Decay


@dataclass(frozen=True, repr=False)
class GateStatistics:
    """One gate of one layer in one direction, over all steps of all sequences.

    Attributes:
        gate: its letter, as in the equations of the module's docstring.
        mean: [H], of each unit.
        spread: [H], standard deviation of each unit.
        shut: [H], share of the steps at which it is saturated at its lower end: below 0.026, or below -0.949 of a tanh.
            There its slope is less than a tenth of what it can be.
        open: [H], the same at the upper end: above 0.974, or above 0.949.
        histogram: [20], share of all values in equal bins from 0 to 1, or from -1 to 1.
    """

    gate: str
    mean: Tensor
    spread: Tensor
    shut: Tensor
    open: Tensor
    histogram: Tensor

    @property
    def saturated(self) -> float:
        """Share of all values at either end."""
        return float((self.shut + self.open).mean())

    def __str__(self) -> str:
        return (
            f"{self.gate}: mean {float(self.mean.mean()):.3f}, spread {float(self.spread.mean()):.3f}, "
            f"saturated {self.saturated:.1%} (shut {float(self.shut.mean()):.1%}, open {float(self.open.mean()):.1%})"
        )

    __repr__ = __str__


@dataclass(frozen=True, repr=False)
class Profile:
    r"""What became of the gradient on its way back through time, in one layer and direction.

    All tensors are float64 on the CPU. Norms at a step are over all sequences of the batch and all units. A lag counts
    steps from the end of each sequence, in the direction of the layer; the end is the last step that the loss, or the
    layer above, touches. At a lag there stands the root mean square over the sequences that are so long.

    Attributes:
        layer: such as ``lstm.l0`` or ``encoder.rnn.l1_reverse``.
        h: [T], norm of :math:`\partial L / \partial h_t`, in which all that comes later has its share; NaN where a look
            in the course of a run had no need of it, as ``c`` and ``gate_grads`` are missing then.
        c: [T], the same of :math:`c_t`, before zoneout; None where a cell has none.
        gate_grads: by letter, [T], norm of the gradient of the sum that goes into a gate.
        memory: [L], size of what comes back to c (to h where there is no c) from the ends of the sequences alone.
        sequences: [L], how many are long enough for a lag.
        decay: rate, fit, horizon and growth of ``memory``.
        length: steps of a sequence up to its end, on average.
        is_at_end: whether the loss touches the module at the ends of the sequences alone.
        truncated: first step of the window where what went before was cut off (a state that was carried on without its
            history): 0, or where ``watch_state`` saw it; None where nothing was.
        gates: how open each gate was.
        keeps: letter of the gate that keeps the state where it is open, if one does.
        saturated_cells: share of all entries of c beyond which a tanh is saturated, |c| > 1.82; NaN without a c.
        is_total: whether ``memory`` is of the total gradient, in which a loss at other steps has its share, as it is of
            a loop of one's own.
    """

    layer: str
    h: Tensor
    c: Tensor | None
    gate_grads: Mapping[str, Tensor]
    memory: Tensor
    sequences: Tensor
    decay: Decay
    length: float
    is_at_end: bool
    truncated: int | None = None
    gates: tuple[GateStatistics, ...] = ()
    keeps: str | None = None
    saturated_cells: float = math.nan
    is_total: bool = False

    @property
    def horizon(self) -> float:
        """The lag from which on less than 1 % of the gradient is left; infinite where that is beyond the sequence."""
        return self.decay.horizon

    @property
    def share(self) -> float:
        """The horizon as a share of the sequence's length, at most 1."""
        return min(1.0, self.horizon / self.length) if self.length else math.nan

    def left_at(self, lag: int) -> float:
        """Share that is left at a lag of the largest gradient up to there; NaN beyond the sequence."""
        if not 0 <= lag < len(self.memory) or not self.memory[: lag + 1].max() > 0:
            return math.nan
        return float(self.memory[lag] / self.memory[: lag + 1].max())

    def __str__(self) -> str:
        rate, fit, horizon, growth = self.decay
        known = "" if math.isnan(rate) else f", {rate:+.3g} per step in the logarithm (fit {fit:.2f})"
        ends = "beyond the sequence" if math.isinf(horizon) else f"{horizon:.1f} steps"
        grown = f", grows {growth:.3g}-fold" if growth > 10 else ""
        cut = "" if self.truncated is None else f", begins at step {self.truncated} with a state without history"
        return f"{self.layer}: length {self.length:.0f}, horizon {ends}{known}{grown}{cut}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """Give words and the curve of the memory for a notebook."""
        return profile_html(self)


@dataclass(frozen=True)
class InTime:
    """What one sampled step showed of the recurrent modules.

    Attributes:
        step: optimizer step, counted from 1.
        lag: how many steps back the task reaches, where the user said so.
        modules: profiles of the layers and directions of each module, by its name.
    """

    step: int
    lag: int | None
    modules: Mapping[str, tuple[Profile, ...]]
