"""The LSTM with RMS norms in the places of layer norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard.functional import recurrence
from gradguard.nn.layer_norm_lstm import AbstractNormedLSTM, AbstractNormedLSTMCell, AbstractNormedLSTMRecurrence


@final
@dataclass(frozen=True)
class RMSNormLSTMRecurrence(AbstractNormedLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.rms_norm_lstm`."""

    name: ClassVar[str] = "rms_norm_lstm"

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.LSTM``, and the three gains: an RMS norm has no shift."""
        shapes = super().shapes(input_size, hidden_size, proj_size, bias=bias)
        shapes.pop("bias_c", None)
        return shapes

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.rms_norm_lstm(x, *states, **params, eps=self.eps)


@final
class RMSNormLSTM(AbstractNormedLSTM):
    r"""An LSTM whose gates are RMS-normalised: scales are taken out as in :class:`LayerNormLSTM`, means are left in.

    .. math:: [i; f; g; o] &= \mathrm{RMS}(W_{ih} x_t; \alpha_{ih}) + \mathrm{RMS}(W_{hh} h_{t-1}; \alpha_{hh})
            + b_{ih} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{RMS}(c_t; \alpha_c))\right) \\
        \mathrm{RMS}(a; \alpha) &= \alpha \odot a / \sqrt{\mathrm{mean}(a^2) + \epsilon}

    Each norm of the gates is over all 4H entries; no norm has a shift, and the cell is carried as it is. Everything
    else is as in :class:`LSTM`; ``from_torch`` takes an ``nn.LSTM``'s weights. Leave weight decay off gains and biases;
    on the weights it changes no output, only the effective learning rate. Not where all entries may rise and fall
    together, which a layer norm takes out, too; and not for speed: there is less to compute, but not in one call.

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
        forget_bias: what the biases of each forget gate add up to at first; None for torch's random ones.
        eps: added to the mean squares, > 0.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Zhang and Sennrich 2019, "Root mean square layer normalization", arXiv 1910.07467, equation 4, at the places
    of Ba et al. 2016, arXiv 1607.06450, equations 20 to 22. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> lstm = RMSNormLSTM(4, 8, eps=1e-6)
    >>> lstm(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 8])
    >>> lstm
    RMSNormLSTM(4, 8, eps=1e-06)
    """

    kind = RMSNormLSTMRecurrence


@final
class RMSNormLSTMCell(AbstractNormedLSTMCell):
    """One step of :class:`RMSNormLSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.
        eps: added to the mean squares, > 0.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = RMSNormLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    kind = RMSNormLSTMRecurrence
