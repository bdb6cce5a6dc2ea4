"""What a kernel is: one way to compute one layer in one direction, and its gradients.

Shape legend: N = rows of all steps, B = batch, I = input, S = width of a state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from gradguard.nn.order import Order
from gradguard.nn.recurrence import AbstractRecurrence


class Noise(NamedTuple):
    """What the options of the family do within a recurrence.

    Attributes:
        drop_h: [B, P], by which the h that enters the products is multiplied; None for 1.
        zones: of each state, which share stays as it was: [N, S], one number for all, or None for none of it.
        clip: bound of the gradient that goes from a step to the h before it; None for none.
    """

    drop_h: Tensor | None = None
    zones: tuple[Tensor | float | None, ...] = (None, None)
    clip: float | None = None


def shares_of_steps(zones: Sequence[Tensor | float | None], order: Order) -> Iterator[tuple[Any, ...]]:
    """For each step, in the order in which they come, which share of each state stays."""
    steps = len(order.sizes)
    return zip(*(order.parts(z) if isinstance(z, Tensor) else (z,) * steps for z in zones), strict=True)


class Layer(NamedTuple):
    """What one layer in one direction is given.

    Attributes:
        recurrence: the cell and its settings.
        x: the input, [N, I].
        states: before the first step, [B, S] each; the first is the output, in the dtype of x, and all others are
            float32 or wider.
        params: by the names of :meth:`AbstractRecurrence.shapes`.
        order: which rows belong to which step.
        noise: what the options of the family do.
    """

    recurrence: AbstractRecurrence
    x: Tensor
    states: tuple[Tensor, ...]
    params: Mapping[str, Tensor]
    order: Order
    noise: Noise = Noise()


class Outcome(NamedTuple):
    """What a forward pass leaves.

    Attributes:
        sequences: each state at every step, [N, S].
        saved: what the backward pass wants beside.
        extras: what the recurrence gives beside its states, which has no gradient.
    """

    sequences: list[Tensor]
    saved: list[Tensor]
    extras: Sequence[Tensor] = ()


class Gradients(NamedTuple):
    """With regard to what the layer was given; missing where nobody asked."""

    x: Tensor | None
    states: list[Tensor]
    params: dict[str, Tensor]


class AbstractKernel(ABC):
    """A way to compute a recurrence, made for one pass over one layer; it leaves what it is given as it is.

    Attributes:
        steps: how many there are; a symbol while a graph is captured.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.steps = len(layer.order.sizes)

    @abstractmethod
    def forward(self, *, save: bool) -> Outcome:
        """Run all steps; without ``save`` nothing is kept for a backward pass."""

    @abstractmethod
    def saved(self) -> list[Tensor]:
        """Empty tensors with the shapes and dtypes of what ``forward(save=True)`` saves."""

    @abstractmethod
    def backward(
        self,
        outcome: Outcome,
        of_sequences: Sequence[Tensor | None],
        of_finals: Sequence[Tensor | None],
        needed: frozenset[str],
    ) -> Gradients:
        """Gradients from those of the states at all steps and after the last; ``needed``: "x", names of parameters."""
