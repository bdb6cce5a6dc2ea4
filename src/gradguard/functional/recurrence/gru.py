"""One step of the gated recurrent unit, as torch has it.

Shape legend: B = batch, I = input, H = hidden, 3 * H: gates r, z, n. h has the dtype of x; what is summed up is float32
or wider.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, product


def gru(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor]:
    r"""Take one step of ``torch.nn.GRU``, whose reset gate stands after the product.

    .. math:: r &= \sigma(W_{ir} x_t + b_{ir} + W_{hr} h_{t-1} + b_{hr}) \\
        z &= \sigma(W_{iz} x_t + b_{iz} + W_{hz} h_{t-1} + b_{hz}) \\
        n &= \tanh(W_{in} x_t + b_{in} + r \odot (W_{hn} h_{t-1} + b_{hn})) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    ``drop_h``, [B, H], multiplies the h that enters the products: the mask of variational dropout. Source: Cho et al.
    2014, arXiv 1406.1078, in the form of cuDNN. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> zero = torch.zeros(3, 1)
    >>> gru(torch.ones(1, 1), torch.ones(1, 1), weight_ih=zero, weight_hh=zero)  # z is a half, n is 0
    (tensor([[0.5000]]),)
    """
    x_r, x_z, x_n = biased(product(x_BI, weight_ih), bias_ih).chunk(3, dim=-1)
    h_r, h_z, h_n = biased(product(dropped(h_BH, drop_h), weight_hh), bias_hh).chunk(3, dim=-1)
    z, n = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return ((n + z * (h_BH.to(n.dtype) - n)).to(h_BH.dtype),)
