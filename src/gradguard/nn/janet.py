"""JANET: an LSTM of which only the forget gate is left."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.forgetting import AbstractForgettingRecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class JANETRecurrence(AbstractForgettingRecurrence):
    """:func:`gradguard.functional.recurrence.janet`.

    Args:
        beta: how far the gate that lets new content in lags behind the one that forgets.
    """

    name: ClassVar[str] = "janet"
    gates: ClassVar[Gates] = gates.JANET
    beta: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a beta that is not finite."""
        super().__post_init__()
        if math.isinf(self.beta):
            raise ValueError(f"{self.name} needs beta to be finite, got {self.beta!r}.")

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Two blocks of rows, f and g, and one bias."""
        self.check_forget_bias(bias=bias)
        rows = 2 * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size), "weight_hh": (rows, hidden_size)}
        return shapes | {"bias_ih": (rows,)} if bias else shapes

    def widths(self, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """Of h, which is the cell."""
        return (hidden_size,)

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.janet(x, *states, **params, beta=self.beta)


@final
class JANET(AbstractRecurrent):
    r"""An LSTM of which only the forget gate is left: half the weights, and h is the cell.

    .. math:: [s; g] &= W_{ih} x_t + W_{hh} h_{t-1} + b_{ih} \\
        h_t &= \sigma(s) \odot h_{t-1} + (1 - \sigma(s - \beta)) \odot \tanh(g)

    Arguments, forms of input, states and exceptions are those of ``torch.nn.GRU``. The paper draws the biases of f with
    chrono initialisation, and its results on long sequences rest on that: ``gradguard.init.chrono_(model, t_max)`` does
    it, where the longest time is known. With :math:`\beta > 0` more comes in than is forgotten, and an entry of h may
    grow up to :math:`e^\beta`; with 0 it is a mean. Not where the output has to hide what is remembered: there is no
    output gate.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether there is a bias.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: the bias of each forget gate at first, in ``bias_ih``; None for random ones as torch's.
        beta: how far the gate that lets new content in lags behind the one that forgets; the paper's is 1.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: van der Westhuizen and Lasenby 2018, "The unreasonable effectiveness of the forget gate", arXiv 1804.04849.
    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> janet = JANET(4, 8, num_layers=2, beta=0.5)
    >>> output, h = janet(torch.randn(5, 3, 4))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 8]), torch.Size([2, 3, 8]))
    >>> janet
    JANET(4, 8, num_layers=2, beta=0.5)
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
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        beta: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            JANETRecurrence(forget_bias, beta),
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            device=device,
            dtype=dtype,
            options=options,
        )


@final
class JANETCell(AbstractCell):
    """One step of :class:`JANET`, with the contract of ``torch.nn.GRUCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether there is a bias.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: the bias of the forget gate at first; None for random ones as torch's.
        beta: how far the gate that lets new content in lags behind the one that forgets.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> JANETCell(4, 8)(torch.randn(3, 4)).shape
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
        beta: float = 1.0,
    ) -> None:
        super().__init__(JANETRecurrence(forget_bias, beta), input_size, hidden_size, bias, device, dtype)
