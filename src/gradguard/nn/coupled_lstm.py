"""The LSTM whose input gate is coupled to its forget gate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.lstm import AbstractLSTMRecurrence
from gradguard.nn.projected import AbstractProjected, AbstractProjectedCell


@final
@dataclass(frozen=True)
class CoupledLSTMRecurrence(AbstractLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.coupled_lstm`."""

    name: ClassVar[str] = "coupled_lstm"
    gates: ClassVar[Gates] = gates.COUPLED_LSTM

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.coupled_lstm(x, *states, **params)


@final
class CoupledLSTM(AbstractProjected):
    r"""An LSTM that lets in as much as it forgets: three quarters of the weights, and a cell within [-1, 1].

    .. math:: [f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + (1 - \sigma(f)) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    Also known as CIFG. Parameters are called as those of ``torch.nn.LSTM``, with blocks f, g and o: its ``state_dict``
    does not fit. Everything else is as in :class:`LSTM`. Not where something is to be counted or added up: c is a mean
    of what came in, never a sum of it.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        proj_size: width of h, where it is smaller than H; 0 for H.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of each forget gate, ``bias_ih + bias_hh``, add up to at first; None for torch's
            random ones.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Greff et al. 2017, "LSTM: a search space odyssey", arXiv 1503.04069, variant CIFG, without peepholes. Host
    sync: none. Mutates: nothing.

    >>> import torch
    >>> lstm = CoupledLSTM(4, 8)
    >>> output, (h, c) = lstm(torch.randn(5, 3, 4))
    >>> output.shape, c.shape, lstm.weight_hh_l0.shape
    (torch.Size([5, 3, 8]), torch.Size([1, 3, 8]), torch.Size([24, 8]))
    """

    kind = CoupledLSTMRecurrence


@final
class CoupledLSTMCell(AbstractProjectedCell):
    """One step of :class:`CoupledLSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = CoupledLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    kind = CoupledLSTMRecurrence
