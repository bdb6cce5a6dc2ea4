"""The layer-normalised LSTM of Ba, Kiros and Hinton, and the parameters and options of all that have these norms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor

from gradguard.arguments import positive
from gradguard.functional import recurrence
from gradguard.nn.lstm import AbstractLSTM, AbstractLSTMCell, AbstractLSTMRecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@dataclass(frozen=True)
class AbstractNormedLSTMRecurrence(AbstractLSTMRecurrence):
    """An LSTM with three norms: of what x gives to the gates, of what h gives, and in the cell.

    Args:
        eps: added to a variance.
    """

    eps: float = 1e-5

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.LSTM``, the three gains, and the shift of c."""
        positive("A norm", "eps", self.eps)
        shapes = super().shapes(input_size, hidden_size, proj_size, bias=bias)
        shapes |= {"gain_ih": (4 * hidden_size,), "gain_hh": (4 * hidden_size,), "gain_c": (hidden_size,)}
        return shapes | {"bias_c": (hidden_size,)} if bias else shapes


class AbstractNormedLSTM(AbstractLSTM):
    """Layers of LSTMs with norms; ``kind`` says which."""

    kind: ClassVar[type[AbstractNormedLSTMRecurrence]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        eps: float = 1e-5,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            self.kind(forget_bias, eps),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
            options,
        )


class AbstractNormedLSTMCell(AbstractLSTMCell):
    """One step of an LSTM with norms; ``kind`` says which."""

    kind: ClassVar[type[AbstractNormedLSTMRecurrence]]

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__(self.kind(forget_bias, eps), input_size, hidden_size, bias, device, dtype)


@final
@dataclass(frozen=True)
class LayerNormLSTMRecurrence(AbstractNormedLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.layer_norm_lstm`."""

    name: ClassVar[str] = "layer_norm_lstm"

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.layer_norm_lstm(x, *states, **params, eps=self.eps)


@final
class LayerNormLSTM(AbstractNormedLSTM):
    r"""An LSTM whose gates are layer-normalised: the paper's, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{LN}(W_{ih} x_t; \alpha_{ih}) + \mathrm{LN}(W_{hh} h_{t-1}; \alpha_{hh})
            + b_{ih} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{LN}(c_t; \alpha_c, \beta_c))\right)

    Each norm of the gates is over all 4H entries, with a gain and no shift: one set of biases comes after both, so that
    a forget bias is not diluted. Everything else is as in :class:`LSTM`; ``from_torch`` takes an ``nn.LSTM``'s weights.
    Leave weight decay off gains and biases; on the weights it changes no output, only the effective learning rate.
    Not where H is tiny: a norm over few entries, or over equal ones, amplifies gradients by up to ``eps ** -0.5``.

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

    Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, equations 20 to 22. Host sync: none.
    Mutates: nothing.

    >>> import torch
    >>> lstm = LayerNormLSTM(4, 8, bidirectional=True)
    >>> lstm(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 16])
    >>> lstm
    LayerNormLSTM(4, 8, bidirectional=True)
    """

    kind = LayerNormLSTMRecurrence


@final
class LayerNormLSTMCell(AbstractNormedLSTMCell):
    """One step of :class:`LayerNormLSTM`, with the contract of ``torch.nn.LSTMCell``.

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
    >>> h, c = LayerNormLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    kind = LayerNormLSTMRecurrence
