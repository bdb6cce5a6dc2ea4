"""What one sampled step showed of the layers: how large their outputs are, and which units do nothing.

Shape legend: U = units of a layer (features of a linear layer, channels of a convolution).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, repr=False)
class Signal:
    """The output of one layer that has a weight, or of an embedding, in the order in which the layers were called.

    Attributes:
        layer: the module, as ``named_modules`` spells it.
        rms: root mean square of the entries of its output.
        grad_rms: that of the loss's gradient by its output; NaN where none came.
        distinct: how much its units differ from one another: root mean square of the output less the units' mean, over
            ``rms``; 0 where all units say the same, NaN where there is one unit or nothing but zeros.
        varies: how much each unit differs from entry to entry of the batch: the same with the means over the batch; 0
            where the layer gives the same whatever comes in, NaN where there is one entry.
        apart: how much of that its units do not do together: root mean square of what is left of it without the units'
            mean at each entry, over all of it; 0 where they rise and fall as one, NaN where there is one unit.
        pull: derivative of the loss by the logarithm of the output's size, of the layer that was called last: the loss
            would fall by about so much, were the output ``e`` times smaller. NaN of all others.
        embeds: whether it looks vectors up, whose size says nothing of the layers behind it.
    """

    layer: str
    rms: float
    grad_rms: float = math.nan
    distinct: float = math.nan
    varies: float = math.nan
    apart: float = math.nan
    pull: float = math.nan
    embeds: bool = False

    def __str__(self) -> str:
        return f"{self.layer or '(root)'}: output {self.rms:.3g}, gradient {self.grad_rms:.3g}"

    __repr__ = __str__


BOUNDED = frozenset({"sigmoid", "tanh", "hardtanh", "hardsigmoid"})  # whose units saturate; others' fall silent


@dataclass(frozen=True, repr=False)
class Units:
    """The activation function behind one layer, where another layer takes its values, or the model gives them.

    Attributes:
        layer: the module whose output goes into the activation, as ``named_modules`` spells it.
        activation: its name, such as ``relu``, ``gelu``, ``sigmoid`` or ``tanh``.
        silent: bool, [U]; units whose slope is zero, or less than a hundredth of the largest, on all entries of the
            batch, at the lower end: of a ReLU those that never fired. None of a bounded activation is.
        saturated: bool, [U]; units of a bounded activation (sigmoid, tanh) whose slope is less than a tenth of the
            largest at 95 % of all entries.
        active: share of all entries, of all units, at which the slope is not small.
        entries: how many entries of the batch a unit was seen on.
        is_output: whether the model gives its values, and no layer takes them: there units may well sit at an end.
    """

    layer: str
    activation: str
    silent: Tensor
    saturated: Tensor
    active: float
    entries: int = 0
    is_output: bool = False

    @property
    def is_bounded(self) -> bool:
        """Whether the activation is bounded at both ends: its units saturate, those of others fall silent."""
        return self.activation in BOUNDED

    def __str__(self) -> str:
        units = len(self.silent)
        return (
            f"{self.layer or '(root)'} ({self.activation}): {units} units, {int(self.silent.sum())} silent, "
            f"{int(self.saturated.sum())} saturated, {self.active:.1%} of the entries active"
        )

    __repr__ = __str__


@dataclass(frozen=True)
class Activations:
    """What one sampled step showed of the layers of a model.

    Attributes:
        step: optimizer step, counted from 1; 0 of a call outside of a run.
        signals: of each layer, in the order of the calls.
        units: of each activation inside the model, in the same order.
    """

    step: int
    signals: tuple[Signal, ...]
    units: tuple[Units, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, (*self.signals, *self.units)))
