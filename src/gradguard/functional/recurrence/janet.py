"""One step of JANET: an LSTM of which only the forget gate is left.

Shape legend: B = batch, I = input, H = hidden, 2 * H: gates f, g. h has the dtype of x; what is summed up is float32 or
wider.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, product


def janet(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
    beta: float = 1.0,
) -> tuple[Tensor]:
    r"""Take one step of JANET.

    .. math:: [s; g] &= W_{ih} x_t + W_{hh} h_{t-1} + b_{ih} \\
        h_t &= \sigma(s) \odot h_{t-1} + (1 - \sigma(s - \beta)) \odot \tanh(g)

    ``drop_h``, [B, H], multiplies the h that enters the products: the mask of variational dropout. Source: van der
    Westhuizen and Lasenby 2018, "The unreasonable effectiveness of the forget gate", arXiv 1804.04849. Host sync: none.
    Mutates: nothing.

    >>> import torch
    >>> zero, one = torch.zeros(2, 1), torch.ones(1, 1)
    >>> janet(one, one, weight_ih=zero, weight_hh=zero, bias_ih=torch.tensor([0.0, 100.0]), beta=0.0)
    (tensor([[1.]]),)
    """
    s, g = biased(product(x_BI, weight_ih) + product(dropped(h_BH, drop_h), weight_hh), bias_ih).chunk(2, dim=-1)
    return ((s.sigmoid() * h_BH + (beta - s).sigmoid() * g.tanh()).to(h_BH.dtype),)
