"""The plain recurrent network with torch's equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor, nn

from gradguard import gates
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.unprojected import AbstractUnprojectedRecurrence
from gradguard.nn.weights import SHARED, take_over

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class RNNRecurrence(AbstractUnprojectedRecurrence):
    """:func:`gradguard.functional.recurrence.rnn`.

    Args:
        nonlinearity: "tanh" or "relu".
    """

    name: ClassVar[str] = "rnn"
    gates: ClassVar[Gates] = gates.RNN
    nonlinearity: str = "tanh"

    def __post_init__(self) -> None:
        """Refuse other nonlinearities."""
        if self.nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity {self.nonlinearity!r}. An RNN needs 'tanh' or 'relu'.")
        super().__post_init__()

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.RNN``."""
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (hidden_size, input_size)}
        shapes["weight_hh"] = (hidden_size, hidden_size)
        return shapes | {"bias_ih": (hidden_size,), "bias_hh": (hidden_size,)} if bias else shapes

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.rnn(x, *states, **params, nonlinearity=self.nonlinearity)


@final
class RNN(AbstractRecurrent):
    r"""``torch.nn.RNN``, with the options of the family, and where torch's has no way: graphs, vmap, T = 0.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    Arguments, forms of input, states, names of parameters and exceptions are those of ``torch.nn.RNN``, whose
    ``state_dict`` it takes. Not for long sequences: its gradient vanishes or explodes with them. On a CPU it takes four
    fifths of the time of ``torch.nn.RNN`` (docs/recurrent.md); on a GPU that is faster, where it does what you need.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        nonlinearity: "tanh" or "relu".
        bias: whether there are biases.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        device: of the parameters.
        dtype: of the parameters.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Elman 1990. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> output, h = RNN(4, 8, nonlinearity="relu")(torch.randn(5, 3, 4))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 8]), torch.Size([1, 3, 8]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            RNNRecurrence(nonlinearity),
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

    @property
    def nonlinearity(self) -> str:
        """Of the cell."""
        return str(vars(self.recurrence)["nonlinearity"])

    @classmethod
    def from_torch(cls, rnn: nn.RNN, **settings: Any) -> RNN:
        """Make one with the sizes, options and weights of a ``torch.nn.RNN``.

        Args:
            rnn: its weights are copied, with dtype, device and ``requires_grad``.
            settings: arguments that neither ``torch.nn.RNN`` nor its weights decide, such as ``zoneout``.

        Raises:
            TypeError: it is no ``torch.nn.RNN``, or decides a setting itself.

        Host sync: none. Mutates: nothing; no random numbers are drawn but for a ``weight_res``.
        """
        return take_over(cls, rnn, nn.RNN, (*SHARED, "nonlinearity"), settings)


@final
class RNNCell(AbstractCell):
    """One step of :class:`RNN`, with the contract of ``torch.nn.RNNCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether there are biases.
        nonlinearity: "tanh" or "relu".
        device: of the parameters.
        dtype: of the parameters.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> RNNCell(4, 8)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(RNNRecurrence(nonlinearity), input_size, hidden_size, bias, device, dtype)

    @classmethod
    def from_torch(cls, cell: nn.RNNCell, **settings: Any) -> RNNCell:
        """Make one with the sizes and weights of a ``torch.nn.RNNCell``; as :meth:`RNN.from_torch`."""
        return take_over(cls, cell, nn.RNNCell, ("bias", "nonlinearity"), settings)
