"""The LSTM whose gates see the cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard.functional import recurrence
from gradguard.nn.lstm import AbstractLSTMRecurrence
from gradguard.nn.projected import AbstractProjected, AbstractProjectedCell


@final
@dataclass(frozen=True)
class PeepholeLSTMRecurrence(AbstractLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.peephole_lstm`."""

    name: ClassVar[str] = "peephole_lstm"

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.LSTM``, and the peepholes of i, f and o."""
        return super().shapes(input_size, hidden_size, proj_size, bias=bias) | {"weight_c": (3 * hidden_size,)}

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.peephole_lstm(x, *states, **params)


@final
class PeepholeLSTM(AbstractProjected):
    r"""An LSTM whose gates see the cell, each unit its own: for exact times and counts, which h may hide.

    .. math:: [i; f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f + p_f \odot c_{t-1}) \odot c_{t-1} + \sigma(i + p_i \odot c_{t-1}) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o + p_o \odot c_t) \odot \tanh(c_t)\right)

    The parameter ``weight_c``, [3H], holds :math:`p_i`, :math:`p_f` and :math:`p_o`; all others are those of
    ``torch.nn.LSTM``, and with peepholes of 0 it computes the same. The initialisers of ``gradguard.init`` leave it
    alone. Everything else is as in :class:`LSTM`. Not as a general improvement: on speech, handwriting and music it was
    not significantly worse without them (Greff et al. 2017, arXiv 1503.04069).

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        proj_size: width of h, where it is smaller than H; 0 for H. c, and what the peepholes see, is not projected.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of each forget gate, ``bias_ih + bias_hh``, add up to at first; None for torch's
            random ones.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Gers, Schraudolph and Schmidhuber 2002, "Learning precise timing with LSTM recurrent networks", in the form
    of Graves 2013, arXiv 1308.0850, equations 7 to 11. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> lstm = PeepholeLSTM(4, 8, num_layers=2)
    >>> output, (h, c) = lstm(torch.randn(5, 3, 4))
    >>> output.shape, c.shape, lstm.weight_c_l1.shape
    (torch.Size([5, 3, 8]), torch.Size([2, 3, 8]), torch.Size([24]))
    """

    kind = PeepholeLSTMRecurrence


@final
class PeepholeLSTMCell(AbstractProjectedCell):
    """One step of :class:`PeepholeLSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = PeepholeLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    kind = PeepholeLSTMRecurrence
