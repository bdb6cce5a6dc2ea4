"""The LSTM with group norms: by default each gate is normed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor

from gradguard.functional import recurrence
from gradguard.nn import checks
from gradguard.nn.layer_norm_lstm import AbstractNormedLSTMRecurrence
from gradguard.nn.lstm import AbstractLSTM, AbstractLSTMCell

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class GroupNormLSTMRecurrence(AbstractNormedLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.group_norm_lstm`.

    Args:
        num_groups: how many blocks of the 4H entries are normed, each alone.
    """

    name: ClassVar[str] = "group_norm_lstm"
    num_groups: int = 4

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.LSTM``, the three gains, and the shift of c."""
        checks.sizes("A group norm", num_groups=self.num_groups)
        if 4 * hidden_size % self.num_groups:
            raise ValueError(
                f"A group norm needs num_groups to divide 4 * hidden_size = {4 * hidden_size}, got {self.num_groups}. "
                "Choose one that does; 4, a group for each gate, always does."
            )
        return super().shapes(input_size, hidden_size, proj_size, bias=bias)

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.group_norm_lstm(x, *states, **params, num_groups=self.num_groups, eps=self.eps)


@final
class GroupNormLSTM(AbstractLSTM):
    r"""An LSTM whose gates are group-normalised: with four groups each gate has a mean and a scale of its own.

    .. math:: [i; f; g; o] &= \mathrm{GN}(W_{ih} x_t; \alpha_{ih}) + \mathrm{GN}(W_{hh} h_{t-1}; \alpha_{hh})
            + b_{ih} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{LN}(c_t; \alpha_c, \beta_c))\right)

    A group is a block of neighbouring entries of the 4H, with a gain for each entry and no shift: one set of biases
    comes after both norms. With ``num_groups=1`` it is :class:`LayerNormLSTM`. The norm of c is over all H entries,
    whatever the number of groups, and the cell is carried as it is. Everything else is as in :class:`LSTM`;
    ``from_torch`` takes an ``nn.LSTM``'s weights. Leave weight decay off gains and biases. Not where a group has few
    entries: a norm over few, or over equal ones, amplifies gradients by up to ``eps ** -0.5``, and over one it is 0.

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
        num_groups: how many blocks of the 4H entries are normed, each alone; a divisor of 4H. With 4, each gate is one.
        eps: added to the variances, > 0.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Wu and He 2018, "Group normalization", arXiv 1803.08494, equations 1, 2 and 7, at the places of Ba et al.
    2016, arXiv 1607.06450, equations 20 to 22. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> lstm = GroupNormLSTM(4, 8, num_groups=2)
    >>> lstm(torch.randn(5, 3, 4))[0].shape
    torch.Size([5, 3, 8])
    >>> lstm
    GroupNormLSTM(4, 8, num_groups=2)
    """

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
        num_groups: int = 4,
        eps: float = 1e-5,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            GroupNormLSTMRecurrence(forget_bias, eps, num_groups),
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


@final
class GroupNormLSTMCell(AbstractLSTMCell):
    """One step of :class:`GroupNormLSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases, and the norm of c a shift.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.
        num_groups: how many blocks of the 4H entries are normed, each alone; a divisor of 4H. With 4, each gate is one.
        eps: added to the variances, > 0.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = GroupNormLSTMCell(4, 8)(torch.randn(3, 4))
    >>> c.shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        num_groups: int = 4,
        eps: float = 1e-5,
    ) -> None:
        made = GroupNormLSTMRecurrence(forget_bias, eps, num_groups)
        super().__init__(made, input_size, hidden_size, bias, device, dtype)
