"""The other layer-normalised LSTM that goes by that name: the normalised cell is carried on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from gradguard.functional import recurrence
from gradguard.nn.layer_norm_lstm import AbstractNormedLSTM, AbstractNormedLSTMCell, AbstractNormedLSTMRecurrence


@final
@dataclass(frozen=True)
class NormalizedCellLSTMRecurrence(AbstractNormedLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.normalized_cell_lstm`."""

    name: ClassVar[str] = "normalized_cell_lstm"

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.normalized_cell_lstm(x, *states, **params, eps=self.eps)


@final
class NormalizedCellLSTM(AbstractNormedLSTM):
    r"""An LSTM whose gates and carried cell are layer-normalised, as in PyTorch's fastrnns benchmark and TF Addons.

    As :class:`LayerNormLSTM`, but

    .. math:: c_t &= \mathrm{LN}(\sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g); \alpha_c, \beta_c) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    It is here so that weights trained with such a layer can be used and results be compared. Not for new models with
    long sequences: the gradient of c passes through the norm's Jacobian at every step, and no longer through the forget
    gates alone. The shifts of the two gate norms that fastrnns has are summed into the biases; the ``eps`` of TF Addons
    is 1e-3.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases, and the norm of c a shift.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        proj_size: width of h, where it is smaller than H; 0 for H.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of each forget gate add up to at first; None for torch's random ones.
        eps: added to the variances, > 0.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: PyTorch's benchmarks/fastrnns/custom_lstms.py; TensorFlow Addons' LayerNormLSTMCell. Host sync: none.
    Mutates: nothing.

    >>> import torch
    >>> NormalizedCellLSTM(4, 8)(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 8])
    """

    kind = NormalizedCellLSTMRecurrence


@final
class NormalizedCellLSTMCell(AbstractNormedLSTMCell):
    """One step of :class:`NormalizedCellLSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases, and the norm of c a shift.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.
        eps: added to the variances, > 0.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = NormalizedCellLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    kind = NormalizedCellLSTMRecurrence
