"""The gated recurrent unit as it was first written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.unprojected import AbstractUnprojected, AbstractUnprojectedCell, AbstractUnprojectedRecurrence


@dataclass(frozen=True)
class AbstractResetBeforeRecurrence(AbstractUnprojectedRecurrence):
    """Gates r, z and n, and a reset h that enters a product of its own; so one set of biases is enough."""

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Of the weights with those blocks that the equations have; of one for an x that stands there without."""
        of_input, of_hidden = self.gates.within("weight_ih"), self.gates.within("weight_hh")
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (len(of_input) * hidden_size, input_size)}
        shapes["weight_hh"] = (len(of_hidden) * hidden_size, hidden_size)
        if len(of_input) < len(self.gates.names) and input_size != hidden_size:
            shapes["weight_in"] = (hidden_size, input_size)
        return shapes | {"bias_ih": (len(self.gates.names) * hidden_size,)} if bias else shapes


@final
@dataclass(frozen=True)
class OriginalGRURecurrence(AbstractResetBeforeRecurrence):
    """:func:`gradguard.functional.recurrence.original_gru`."""

    name: ClassVar[str] = "original_gru"
    gates: ClassVar[Gates] = gates.GRU

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.original_gru(x, *states, **params)


@final
class OriginalGRU(AbstractUnprojected):
    r"""The GRU of the paper, whose reset gate stands before the product with h, not behind it as torch's.

    .. math:: r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        z &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        n &= \tanh(W_n x_t + U_n (r \odot h_{t-1}) + b_n) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    Arguments, forms of input, states and exceptions are those of ``torch.nn.GRU``; ``weight_ih`` and ``weight_hh`` have
    the blocks r, z and n in torch's order, and ``bias_ih`` is the only bias. z keeps the state where it is open. It is
    here to repeat results, and for weights of Keras with ``reset_after=False``, whose order is z, r, n. Not for new
    models: :class:`GRU` has one product a step instead of two, and ``torch.nn.GRU`` is faster still; weights of theirs
    don't fit here.

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

    Source: Cho et al. 2014, arXiv 1406.1078v3, equations 5 to 8. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> output, h = OriginalGRU(4, 8)(torch.randn(5, 3, 4))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 8]), torch.Size([1, 3, 8]))
    """

    kind = OriginalGRURecurrence


@final
class OriginalGRUCell(AbstractUnprojectedCell):
    """One step of :class:`OriginalGRU`, with the contract of ``torch.nn.GRUCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> OriginalGRUCell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    kind = OriginalGRURecurrence
