"""MUT1, MUT2 and MUT3: the three best of ten thousand mutated cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.original_gru import AbstractResetBeforeRecurrence
from gradguard.nn.unprojected import AbstractUnprojected, AbstractUnprojectedCell


@final
@dataclass(frozen=True)
class MUT1Recurrence(AbstractResetBeforeRecurrence):
    """:func:`gradguard.functional.recurrence.mut1`."""

    name: ClassVar[str] = "mut1"
    gates: ClassVar[Gates] = gates.MUT1

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.mut1(x, *states, **params)


@final
@dataclass(frozen=True)
class MUT2Recurrence(AbstractResetBeforeRecurrence):
    """:func:`gradguard.functional.recurrence.mut2`."""

    name: ClassVar[str] = "mut2"
    gates: ClassVar[Gates] = gates.MUT2

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.mut2(x, *states, **params)


@final
@dataclass(frozen=True)
class MUT3Recurrence(AbstractResetBeforeRecurrence):
    """:func:`gradguard.functional.recurrence.mut3`."""

    name: ClassVar[str] = "mut3"
    gates: ClassVar[Gates] = gates.MUT3

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.mut3(x, *states, **params)


@final
class MUT1(AbstractUnprojected):
    r"""The first of the cells that a search over architectures found: a GRU whose update gate sees the input alone.

    .. math:: z &= \sigma(W_z x_t + b_z) \\
        r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + \tanh(x_t) + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    Arguments, forms of input, states and exceptions are those of ``torch.nn.GRU``. ``weight_ih`` has the blocks r and
    z, ``weight_hh`` r and n, and ``bias_ih``, the only bias, r, z and n. In :math:`\tanh(x_t)` x has no weight, so it
    has to be as wide as h: where it is not, it is multiplied with a learned ``weight_in``, [H, I].

    z writes where it is open, in torch's GRU it keeps: to remember for long, its bias is negative, as
    :func:`gradguard.init.chrono_` sets it. Not as a first choice: on some tasks of the paper it was ahead of LSTM and
    GRU, but an LSTM whose forget gate begins open came near it, and torch's own are faster.

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

    Source: Jozefowicz, Zaremba and Sutskever 2015, "An empirical exploration of recurrent network architectures", ICML.
    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> output, h = MUT1(4, 8)(torch.randn(5, 3, 4))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 8]), torch.Size([1, 3, 8]))
    >>> hasattr(MUT1(4, 8), "weight_in_l0"), hasattr(MUT1(8, 8), "weight_in_l0")
    (True, False)
    """

    kind = MUT1Recurrence


@final
class MUT1Cell(AbstractUnprojectedCell):
    """One step of :class:`MUT1`, with the contract of ``torch.nn.GRUCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> MUT1Cell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    kind = MUT1Recurrence


@final
class MUT2(AbstractUnprojected):
    r"""The second of the cells that a search over architectures found: a GRU whose reset gate takes the input as it is.

    .. math:: z &= \sigma(W_z x_t + U_z h_{t-1} + b_z) \\
        r &= \sigma(x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + W_n x_t + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    Arguments, exceptions, source and what to mind are those of :class:`MUT1`. ``weight_ih`` has the blocks z and n,
    ``weight_hh`` and ``bias_ih`` have r, z and n. Where x is not as wide as h, ``weight_in``, [H, I], is multiplied
    with it in r. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> MUT2(4, 8)(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 8])
    """

    kind = MUT2Recurrence


@final
class MUT2Cell(AbstractUnprojectedCell):
    """One step of :class:`MUT2`; arguments as those of :class:`MUT1Cell`. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> MUT2Cell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    kind = MUT2Recurrence


@final
class MUT3(AbstractUnprojected):
    r"""The third of the cells that a search over architectures found: a GRU whose update gate sees the tanh of h.

    .. math:: z &= \sigma(W_z x_t + U_z \tanh(h_{t-1}) + b_z) \\
        r &= \sigma(W_r x_t + U_r h_{t-1} + b_r) \\
        n &= \tanh(U_n (r \odot h_{t-1}) + W_n x_t + b_n) \\
        h_t &= z \odot n + (1 - z) \odot h_{t-1}

    Arguments, exceptions, source and what to mind are those of :class:`MUT1`. ``weight_ih``, ``weight_hh`` and
    ``bias_ih`` have the blocks r, z and n; there is no ``weight_in``. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> MUT3(4, 8)(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 8])
    """

    kind = MUT3Recurrence


@final
class MUT3Cell(AbstractUnprojectedCell):
    """One step of :class:`MUT3`; arguments as those of :class:`MUT1Cell`. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> MUT3Cell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    kind = MUT3Recurrence
