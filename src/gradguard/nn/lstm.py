"""The LSTM with torch's equations, and what all LSTMs of the family share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, final

from torch import Tensor, nn

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.forgetting import AbstractForgettingRecurrence
from gradguard.nn.projected import AbstractProjected, AbstractProjectedCell
from gradguard.nn.weights import SHARED, take_over

Layers = TypeVar("Layers", bound="AbstractLSTM")
Cell = TypeVar("Cell", bound="AbstractLSTMCell")


@dataclass(frozen=True)
class AbstractLSTMRecurrence(AbstractForgettingRecurrence):
    """Gates i, f, g and o, where a cell has no others; two states: h, which a projection may make smaller, and c."""

    gates: ClassVar[Gates] = gates.LSTM

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.LSTM``."""
        self.check_forget_bias(bias=bias)
        rows = len(self.gates.names) * hidden_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, input_size)}
        shapes["weight_hh"] = (rows, proj_size or hidden_size)
        if bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if proj_size:
            shapes["weight_hr"] = (proj_size, hidden_size)
        return shapes

    def widths(self, hidden_size: int, proj_size: int) -> tuple[int, ...]:
        """Of h and c."""
        return proj_size or hidden_size, hidden_size


@final
@dataclass(frozen=True)
class LSTMRecurrence(AbstractLSTMRecurrence):
    """:func:`gradguard.functional.recurrence.lstm`."""

    name: ClassVar[str] = "lstm"

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.lstm(x, *states, **params)


class AbstractLSTM(AbstractRecurrent):
    """Layers of LSTMs, whose weights may come from ``torch.nn.LSTM``."""

    @classmethod
    def from_torch(cls: type[Layers], lstm: nn.LSTM, **settings: Any) -> Layers:
        """Make one with the sizes, options and weights of a ``torch.nn.LSTM``.

        Args:
            lstm: its weights are copied, forget gates' biases among them, with dtype, device and ``requires_grad``.
            settings: arguments that neither ``torch.nn.LSTM`` nor its weights decide, such as ``eps``; parameters that
                it has not are as when new.

        Raises:
            TypeError: it is no ``torch.nn.LSTM``, or decides a setting itself.

        Host sync: none. Mutates: nothing; no random numbers are drawn but for a ``weight_res``.
        """
        return take_over(cls, lstm, nn.LSTM, (*SHARED, "proj_size"), settings)


class AbstractLSTMCell(AbstractCell):
    """One step of an LSTM, whose weights may come from ``torch.nn.LSTMCell``."""

    @classmethod
    def from_torch(cls: type[Cell], cell: nn.LSTMCell, **settings: Any) -> Cell:
        """Make one with the sizes and weights of a ``torch.nn.LSTMCell``; as :meth:`LSTM.from_torch`."""
        return take_over(cls, cell, nn.LSTMCell, ("bias",), settings)


@final
class LSTM(AbstractLSTM, AbstractProjected):
    r"""``torch.nn.LSTM``, with a forget gate that begins open, and where torch's has no way: graphs, vmap, T = 0.

    .. math:: [i; f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    Arguments, forms of input, states, names of parameters and exceptions are those of ``torch.nn.LSTM``, whose
    ``state_dict`` it takes. What differs: ``torch.compile(fullgraph=True)``, ``torch.export`` with dynamic T and B,
    ``torch.func``, forward mode and double backward work; T may be 0; packed input of a wrong width is refused; c is
    kept in float32 at least, and under autocast comes out so (output and h in autocast's dtype); ``torch.jit.script``
    does not work. Not for the last bit of speed on plain LSTMs: torch's own kernel is faster (docs/recurrent.md).

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

    Source: Hochreiter and Schmidhuber 1997; Gers et al. 2000 for the forget gate and its bias of 1, as recommended by
    Jozefowicz et al. 2015. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> lstm = LSTM(4, 8, num_layers=2, batch_first=True)
    >>> output, (h, c) = lstm(torch.randn(3, 5, 4))
    >>> output.shape, h.shape
    (torch.Size([3, 5, 8]), torch.Size([2, 3, 8]))
    >>> (lstm.bias_ih_l0 + lstm.bias_hh_l0)[8:16].detach()
    tensor([1., 1., 1., 1., 1., 1., 1., 1.])
    """

    kind = LSTMRecurrence


@final
class LSTMCell(AbstractLSTMCell, AbstractProjectedCell):
    """One step of :class:`LSTM`, with the contract of ``torch.nn.LSTMCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h, c = LSTMCell(4, 8)(torch.randn(3, 4))
    >>> h.shape
    torch.Size([3, 8])
    """

    kind = LSTMRecurrence
