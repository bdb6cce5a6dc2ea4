"""One step of the layer-normalised gated recurrent unit.

Shape legend: B = batch, I = input, H = hidden, 3 * H: gates r, z, n. h has the dtype of x; what is summed up is float32
or wider.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, norm, product


def layer_norm_gru(
    x_BI: Tensor,
    h_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    gain_ih: Tensor,
    gain_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    drop_h: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor]:
    r"""Take one step of a layer-normalised GRU, whose reset gate stands after the norm of the product.

    .. math:: [r; z] &= \sigma\left(\mathrm{LN}([W_{ir}; W_{iz}] x_t) + [b_{ir}; b_{iz}]
            + \mathrm{LN}([W_{hr}; W_{hz}] h_{t-1}) + [b_{hr}; b_{hz}]\right) \\
        n &= \tanh\left(\mathrm{LN}(W_{in} x_t) + b_{in} + r \odot (\mathrm{LN}(W_{hn} h_{t-1}) + b_{hn})\right) \\
        h_t &= (1 - z) \odot n + z \odot h_{t-1}

    The norms of the gates are over their 2H entries, those of the candidate over H, each with its part of ``gain_ih``
    or ``gain_hh``, [3H]. ``drop_h``, [B, H], multiplies the h that enters the products: the mask of variational
    dropout. Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, in the form of the authors'
    code (``lngru_layer``). Host sync: none. Mutates: nothing.

    >>> zero, one = torch.zeros(3, 1), torch.ones(3)
    >>> layer_norm_gru(torch.ones(1, 1), torch.ones(1, 1), weight_ih=zero, weight_hh=zero, gain_ih=one, gain_hh=one)
    (tensor([[0.5000]]),)
    """
    width = h_BH.shape[-1]
    x_B3H, h_B3H = product(x_BI, weight_ih), product(dropped(h_BH, drop_h), weight_hh)
    x_r, x_z, x_n = biased(_normed(x_B3H, gain_ih, width, eps), bias_ih).chunk(3, dim=-1)
    h_r, h_z, h_n = biased(_normed(h_B3H, gain_hh, width, eps), bias_hh).chunk(3, dim=-1)
    z, n = (x_z + h_z).sigmoid(), (x_n + (x_r + h_r).sigmoid() * h_n).tanh()
    return ((n + z * (h_BH.to(n.dtype) - n)).to(h_BH.dtype),)


def _normed(z_B3H: Tensor, gain: Tensor, width: int, eps: float) -> Tensor:
    """Norm what goes into the gates, and what goes into the candidate."""
    parts = slice(None, 2 * width), slice(2 * width, None)
    return torch.cat([norm(z_B3H[..., part], gain[part], None, eps) for part in parts], dim=-1)
