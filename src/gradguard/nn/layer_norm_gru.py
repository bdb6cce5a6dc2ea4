"""The layer-normalised GRU in the form of Ba, Kiros and Hinton's own code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from torch import Tensor

from gradguard.arguments import positive
from gradguard.functional import recurrence
from gradguard.nn.gru import AbstractGRU, AbstractGRUCell, AbstractGRURecurrence

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from gradguard.nn.options import Options


@final
@dataclass(frozen=True)
class LayerNormGRURecurrence(AbstractGRURecurrence):
    """:func:`gradguard.functional.recurrence.layer_norm_gru`.

    Args:
        eps: added to a variance.
    """

    name: ClassVar[str] = "layer_norm_gru"
    eps: float = 1e-5

    def shapes(self, input_size: int, hidden_size: int, proj_size: int, *, bias: bool) -> dict[str, tuple[int, ...]]:
        """Those of ``nn.GRU``, and two gains."""
        positive("A norm", "eps", self.eps)
        shapes = super().shapes(input_size, hidden_size, proj_size, bias=bias)
        return shapes | {"gain_ih": (3 * hidden_size,), "gain_hh": (3 * hidden_size,)}

    def step(self, x: Tensor, *states: Tensor, **params: Tensor) -> tuple[Tensor, ...]:
        """Take one step."""
        return recurrence.layer_norm_gru(x, *states, **params, eps=self.eps)


@final
class LayerNormGRU(AbstractGRU):
    r"""A GRU whose gates and candidate are layer-normalised; the reset gate stands after the norm of the product.

    .. math:: [r; z] &= \sigma\left(\mathrm{LN}([W_{ir}; W_{iz}] x_t) + [b_{ir}; b_{iz}]
            + \mathrm{LN}([W_{hr}; W_{hz}] h_{t-1}) + [b_{hr}; b_{hz}]\right) \\
        n &= \tanh\left(\mathrm{LN}(W_{in} x_t) + b_{in} + r \odot (\mathrm{LN}(W_{hn} h_{t-1}) + b_{hn})\right) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    The norms of the gates are over their 2H entries, those of the candidate over its H; each has a gain, its part of
    ``gain_ih`` or ``gain_hh``, [3H], and no shift: the biases come after. h is carried as it is. Other layers of this
    name take one norm over all 3H entries (haste), which is another function. Everything else is as in :class:`GRU`;
    ``from_torch`` takes an ``nn.GRU``'s weights. Leave weight decay off gains and biases; on the weights it changes no
    output, only the effective learning rate. Not where H is tiny: a norm over few entries, or over equal ones,
    amplifies gradients by up to ``eps ** -0.5``.

    Args:
        input_size: I.
        hidden_size: H.
        num_layers: how many layers stand on one another.
        bias: whether the gates have biases.
        batch_first: whether input and output are [B, T, I] rather than [T, B, I]; states are not.
        dropout: share of the outputs of all layers but the last that become 0 in training.
        bidirectional: whether a second direction runs from the end.
        device: of the parameters.
        dtype: of the parameters.
        eps: added to the variances, > 0.
        options: of the family, see :class:`gradguard.nn.Options`.

    Raises:
        ValueError: an argument out of range.
        TypeError: one of a wrong type.

    Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, in the form of the authors' code
    (``lngru_layer``). Host sync: none. Mutates: nothing.

    >>> import torch
    >>> output, h = LayerNormGRU(4, 8, num_layers=2)(torch.randn(5, 3, 4))
    >>> output.shape, h.shape
    (torch.Size([5, 3, 8]), torch.Size([2, 3, 8]))
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
        eps: float = 1e-5,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(
            LayerNormGRURecurrence(eps),
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
class LayerNormGRUCell(AbstractGRUCell):
    """One step of :class:`LayerNormGRU`, with the contract of ``torch.nn.GRUCell``.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases.
        device: of the parameters.
        dtype: of the parameters.
        eps: added to the variances, > 0.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> LayerNormGRUCell(4, 8)(torch.randn(3, 4)).shape
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
        eps: float = 1e-5,
    ) -> None:
        super().__init__(LayerNormGRURecurrence(eps), input_size, hidden_size, bias, device, dtype)
