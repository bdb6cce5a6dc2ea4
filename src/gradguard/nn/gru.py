"""The gated recurrent unit with torch's equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, final

from torch import Tensor, nn

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.unprojected import AbstractUnprojected, AbstractUnprojectedCell, AbstractUnprojectedRecurrence
from gradguard.nn.weights import SHARED, take_over

Layers = TypeVar("Layers", bound="AbstractGRU")
Cell = TypeVar("Cell", bound="AbstractGRUCell")


@dataclass(frozen=True)
class AbstractGRURecurrence(AbstractUnprojectedRecurrence):
    """Gates r, z and n; h is the only state."""

    gates: ClassVar[Gates] = gates.GRU

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.GRU``."""
        rows = 3 * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        return shapes | {"bias_ih": (rows,), "bias_hh": (rows,)} if bias else shapes


class AbstractGRU(AbstractRecurrent):
    """Layers of GRUs, whose weights may come from ``torch.nn.GRU``."""

    @classmethod
    def from_torch(cls: type[Layers], gru: nn.GRU, **settings: Any) -> Layers:
        """Make one with the sizes, options and weights of a ``torch.nn.GRU``.

        Args:
            gru: its weights are copied, with dtype, device and ``requires_grad``.
            settings: arguments that neither ``torch.nn.GRU`` nor its weights decide, such as ``zoneout``; parameters
                that it has not are as when new.

        Raises:
            TypeError: it is no ``torch.nn.GRU``, or decides a setting itself.

        Host sync: none. Mutates: nothing; no random numbers are drawn but for a ``weight_res``.
        """
        return take_over(cls, gru, nn.GRU, SHARED, settings)


class AbstractGRUCell(AbstractCell):
    """One step of a GRU, whose weights may come from ``torch.nn.GRUCell``."""

    @classmethod
    def from_torch(cls: type[Cell], cell: nn.GRUCell, **settings: Any) -> Cell:
        """Make one with the sizes and weights of a ``torch.nn.GRUCell``; as :meth:`GRU.from_torch`."""
        return take_over(cls, cell, nn.GRUCell, ("bias",), settings)


@final
@dataclass(frozen=True)
class GRURecurrence(AbstractGRURecurrence):
    """:func:`gradguard.functional.recurrence.gru`."""

    name: ClassVar[str] = "gru"

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.gru(x, *states, **params)


@final
class GRU(AbstractGRU, AbstractUnprojected):
    r"""``torch.nn.GRU``, with the options of the family, and where torch's has no way: graphs, vmap, T = 0.

    .. math:: r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n &= \tanh(W_{in} x_t + b_{in} + r \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    Arguments, forms of input, states, names of parameters and exceptions are those of ``torch.nn.GRU``, whose
    ``state_dict`` it takes. z keeps the state where it is open. On a CPU it takes three quarters of the time
    of ``torch.nn.GRU`` (docs/recurrent.md); on a GPU that is faster, where it does what you need.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        device: of the parameters.
        dtype: of the parameters.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Cho et al. 2014, arXiv 1406.1078, in the form of cuDNN: the reset gate stands after the product. Host sync:
    none. Mutates: nothing.

    >>> import torch
    >>> output, h = GRU(4, 8, num_layers=2, batch_first=True)(torch.randn(3, 5, 4))
    >>> output.shape, h.shape
    (torch.Size([3, 5, 8]), torch.Size([2, 3, 8]))
    """

    kind = GRURecurrence


@final
class GRUCell(AbstractGRUCell, AbstractUnprojectedCell):
    """One step of :class:`GRU`, with the contract of ``torch.nn.GRUCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> GRUCell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    kind = GRURecurrence
