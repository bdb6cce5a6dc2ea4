"""One step of the plain recurrent network.

Shape legend: B = batch, I = input, H = hidden. h has the dtype of x; what is summed up is float32 or wider.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import activated, biased, dropped, product


def rnn(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    drop_h: Tensor | None = None,
    nonlinearity: str = "tanh",
) -> tuple[Tensor]:
    r"""Take one step of ``torch.nn.RNN``.

    .. math:: h_t = \tanh(W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh})

    or with :math:`\max(\cdot, 0)`, where ``nonlinearity`` is "relu". ``drop_h``, [B, H], multiplies the h that enters
    the product: the mask of variational dropout. Source: Elman 1990. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> one = torch.ones(1, 1)
    >>> rnn(one, one, weight_ih=one, weight_hh=one, nonlinearity="relu")
    (tensor([[2.]]),)
    """
    z = biased(product(x_BI, weight_ih) + product(dropped(h_BH, drop_h), weight_hh), bias_ih, bias_hh)
    return (activated(z, nonlinearity).to(h_BH.dtype),)
