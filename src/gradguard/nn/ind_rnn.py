"""The independently recurrent network, whose units' memories are bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, final

import torch
from torch import Tensor, nn

from gradguard import gates
from gradguard.arguments import positive, whole_number
from gradguard.functional import recurrence
from gradguard.gates import Gates
from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.bounded import bounded, bounds_of, keep_bounded
from gradguard.nn.cell import AbstractCell
from gradguard.nn.unprojected import AbstractUnprojectedRecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class IndRNNRecurrence(AbstractUnprojectedRecurrence):
    """:func:`gradguard.functional.recurrence.ind_rnn`, with a bounded u.

    Args:
        length: T, the steps of a training sequence.
        nonlinearity: "relu" or "tanh".
        gamma: what u may make of a gradient over T steps, at most.
        long_memory: whether new units of the last layer keep what the first step brought.

    Attributes:
        bounds: of u, in each dtype, as text.
        lasting: the least u of a long memory.
    """

    name: ClassVar[str] = "ind_rnn"
    gates: ClassVar[Gates] = gates.RNN
    drops_h: ClassVar[bool] = False
    lacks: ClassVar[Mapping[str, str]] = {
        "weight_dropout": "its recurrent weight is a vector, each entry of which is one unit's memory"
    }
    length: int | None = None
    nonlinearity: str = "relu"
    gamma: float = 2.0
    long_memory: bool = field(default=True, metadata={"initial": True})
    bounds: dict[torch.dtype, str] = field(init=False, repr=False, compare=False)
    lasting: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Refuse what gives no bound."""
        if self.length is None:
            raise TypeError(
                "IndRNN needs length, the number of steps of training sequences, to bound its recurrent weights by "
                "gamma ** (1 / length)."
            )
        if self.nonlinearity not in ("relu", "tanh"):
            raise ValueError(f"Unknown nonlinearity {self.nonlinearity!r}. An IndRNN needs 'relu' or 'tanh'.")
        if not isinstance(self.long_memory, bool):
            raise TypeError(f"IndRNN needs long_memory to be a bool, got {self.long_memory!r}.")
        length, gamma = whole_number("IndRNN", "length", self.length), positive("IndRNN", "gamma", self.gamma)
        object.__setattr__(self, "length", length)  # an integer of NumPy's or a tensor would not be read back
        object.__setattr__(self, "bounds", bounds_of(gamma ** (1 / length)))
        object.__setattr__(self, "lasting", min(1 / gamma, gamma / 4) ** (1 / length))
        super().__post_init__()

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.RNN``, but for a vector in place of the recurrent matrix, and one bias."""
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (hidden_size, input_size), "weight_hh": (hidden_size,)}
        return shapes | {"bias_ih": (hidden_size,)} if bias else shapes

    def effective(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        """Bound u."""
        u = params["weight_hh"]
        return params | {"weight_hh": bounded(u, self.bounds)}

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.ind_rnn(x, *states, **params, nonlinearity=self.nonlinearity)

    def fill_(self, name: str, param: Tensor, hidden_size: int) -> None:
        """Draw u from all that is allowed and not below 0: units that forget at once, and units that do not."""
        if name == "weight_hh":
            nn.init.uniform_(param, 0.0, float(self.bounds[param.dtype]))
        elif name == "bias_ih":
            nn.init.zeros_(param)
        else:
            super().fill_(name, param, hidden_size)

    def fill_last_(self, u: Tensor) -> None:
        """Draw the u of a last layer: near 1, where units are to have a long memory."""
        if self.long_memory:
            bound = float(self.bounds[u.dtype])
            nn.init.uniform_(u, min(self.lasting, bound), bound)


@final
class IndRNN(AbstractRecurrent):
    r"""An independently recurrent network: for sequences of thousands of steps, and for many layers on one another.

    .. math:: h_t = \max(W_{ih} x_t + u \odot h_{t-1} + b_{ih}, 0), \quad |u| \le \gamma^{1/T}

    Each unit sees of the state only itself, so that over T steps a gradient changes by :math:`u^T` at most, which lies
    in :math:`[-\gamma, \gamma]` whatever is learned. Units meet in the layer above: take two layers or more. Arguments
    (but for ``length`` and what follows it), forms of input, states and exceptions are those of ``torch.nn.RNN``. Of a
    layer there are ``weight_ih``, ``weight_hh``, which is u, [H], and one bias, ``bias_ih``.

    Of the options, ``variational_dropout`` is on inputs alone: a mask on h would multiply u at every step.

    The bound holds in every pass, whatever wrote the parameter, under autocast and in half precision, too. What is
    stored is brought back before each forward pass in training, and where it is saved or loaded. An entry that is
    outside nevertheless (as in a graph that was compiled, and of FSDP's shards) has no gradient that pushes it further
    out, but in an exported program, which is not for training. Leave u out of weight decay, which would make units
    forget: :meth:`weight_decay_groups`. The initialisers of recurrent matrices leave it alone.

    Not for sequences of a few steps, and not where units of one layer must work on each other's states: take a GRU.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        nonlinearity: "relu" or "tanh".
        bias: whether there is a bias, which begins at 0: a unit that forgets nothing adds it up over all steps.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        device: of the parameters.
        dtype: of the parameters.
        length: T, the number of steps of training sequences, of the longest where they differ; there is no default.
        gamma: bound of :math:`|u|^T`; > 0. 1 where T is not known.
        long_memory: whether new units of the last layer keep what the first step brought, as a task wants that is read
            off at the end: :math:`u \sim \mathcal{U}[\gamma^{-1/T}, \gamma^{1/T}]` (for gamma below 2 from
            :math:`(\gamma / 4)^{1/T}` on), in place of the other layers' :math:`\mathcal{U}[0, \gamma^{1/T}]`.
        options: of the family, see :class:`gradguard.nn.Options`; without ``weight_dropout``.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type, or no ``length``.

    Source: Li et al. 2018, "Independently recurrent neural network (IndRNN)", arXiv 1803.04831, section 3; the
    initialisation of Li et al. 2019, arXiv 1910.06251. Host sync: none. Mutates: the stored u, brought back to its
    bound before a forward pass in training.

    >>> import torch
    >>> rnn = IndRNN(4, 8, num_layers=2, length=100)
    >>> output, h = rnn(torch.randn(100, 3, 4))
    >>> output.shape, h.shape, bool(rnn.weight_hh_l1.abs().max() <= 2 ** (1 / 100))
    (torch.Size([100, 3, 8]), torch.Size([2, 3, 8]), True)
    """

    recurrence: IndRNNRecurrence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "relu",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        length: int | None = None,
        gamma: float = 2.0,
        long_memory: bool = True,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            IndRNNRecurrence(length, nonlinearity, gamma, long_memory),
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
        keep_bounded(self)

    @property
    def nonlinearity(self) -> str:
        """Of the cell."""
        return self.recurrence.nonlinearity

    def reset_parameters(self) -> None:
        """Draw the weights anew; those of the last layer with a long memory, if that was asked for."""
        super().reset_parameters()
        for names in self._layers[-2 if self.bidirectional else -1 :]:
            self.recurrence.fill_last_(getattr(self, names["weight_hh"]))


@final
class IndRNNCell(AbstractCell):
    """One step of :class:`IndRNN`, with the contract of ``torch.nn.RNNCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether there is a bias.
        nonlinearity: "relu" or "tanh".
        device: of the parameters.
        dtype: of the parameters.
        length: T, the number of steps of training sequences.
        gamma: bound of ``|u| ** T``; > 0.
        long_memory: whether new units keep what the first step brought.

    Host sync: none. Mutates: as :class:`IndRNN`.

    >>> import torch
    >>> IndRNNCell(4, 8, length=100)(torch.randn(3, 4)).shape
    torch.Size([3, 8])
    """

    recurrence: IndRNNRecurrence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "relu",
        device: Any = None,
        dtype: Any = None,
        *,
        length: int | None = None,
        gamma: float = 2.0,
        long_memory: bool = True,
    ) -> None:
        kind = IndRNNRecurrence(length, nonlinearity, gamma, long_memory)
        super().__init__(kind, input_size, hidden_size, bias, device, dtype)
        keep_bounded(self)

    def reset_parameters(self) -> None:
        """Draw the weights anew; with a long memory, if that was asked for."""
        super().reset_parameters()
        self.recurrence.fill_last_(self.get_parameter("weight_hh"))
