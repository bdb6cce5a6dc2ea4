"""One step of the independently recurrent network.

Shape legend: B = batch, I = input, H = hidden. h has the dtype of x; what is summed up is float32 or wider.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import activated, biased, dropped, product


def ind_rnn(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    drop_h: Tensor | None = None,
    nonlinearity: str = "relu",
) -> tuple[Tensor]:
    r"""Take one step of an IndRNN, each unit of which sees of the state only itself.

    .. math:: h_t = \max(W_{ih} x_t + u \odot h_{t-1} + b_{ih}, 0)

    or with tanh, where ``nonlinearity`` is "tanh". ``weight_hh`` is u, [H], taken as it is: that it be bounded is left
    to the module. ``drop_h``, [B, H], multiplies the h that enters the product: the mask of variational dropout.
    Source: Li et al. 2018, arXiv 1803.04831, equation 4. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> h = torch.tensor([[1.0, 1.0]])
    >>> ind_rnn(torch.ones(1, 1), h, weight_ih=torch.ones(2, 1), weight_hh=torch.tensor([0.5, -2.0]))
    (tensor([[1.5000, 0.0000]]),)
    """
    z = biased(product(x_BI, weight_ih), bias_ih)
    z = z + dropped(h_BH, drop_h).to(z.dtype) * weight_hh.to(z.dtype)
    return (activated(z, nonlinearity).to(h_BH.dtype),)
