"""One step of an LSTM.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, lstm_cell, product


def lstm(
    x_BI: Tensor,
    h_BP: Tensor,
    c_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of an LSTM.

    .. math:: [i; f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    without :math:`W_{hr}` where there is no projection. ``drop_h``, [B, P], multiplies the h that enters the product:
    the mask of variational dropout. Source: Hochreiter and Schmidhuber 1997; the forget gate of
    Gers et al. 2000; the projection of Sak et al. 2014. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> zero, one = torch.zeros(1, 1), torch.ones(4, 1)
    >>> h, c = lstm(zero, zero, torch.ones(1, 1), weight_ih=one, weight_hh=one)
    >>> c  # half of it is kept, and nothing added
    tensor([[0.5000]])
    """
    gates = biased(product(x_BI, weight_ih) + product(dropped(h_BP, drop_h), weight_hh), bias_ih, bias_hh)
    c_new, o_BH = lstm_cell(gates, c_BH)
    return leaving(o_BH * c_new.tanh(), h_BP, weight_hr), c_new
