"""One step of the LSTM with group norms.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, group_norm, leaving, lstm_cell, norm, product


def group_norm_lstm(
    x_BI: Tensor,
    h_BP: Tensor,
    c_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    gain_ih: Tensor,
    gain_hh: Tensor,
    gain_c: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    bias_c: Tensor | None = None,
    weight_hr: Tensor | None = None,
    drop_h: Tensor | None = None,
    num_groups: int = 4,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of an LSTM with group norms, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{GN}(W_{ih} x_t; \alpha_{ih}) + \mathrm{GN}(W_{hh} h_{t-1}; \alpha_{hh}) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{LN}(c_t; \alpha_c, \beta_c))\right)

    with :math:`b = b_{ih} + b_{hh}`. GN takes mean and biased variance of each of ``num_groups`` blocks of the 4H
    entries: with 4 of each gate, with 1 it is LN. The norm of c is over all H entries, one group. Source: Wu and He
    2018, "Group normalization", arXiv 1803.08494, equations 1, 2 and 7, at the places of Ba et al. 2016. Host sync:
    none. Mutates: nothing.

    >>> import torch
    >>> parameters = {"weight_ih": torch.ones(8, 1), "weight_hh": torch.ones(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> h, c = group_norm_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]), **parameters)
    >>> c, h  # c is halved and carried; what goes out is half of tanh(-1) and tanh(1)
    (tensor([[1., 2.]]), tensor([[-0.3808,  0.3808]]))
    """
    x_BG, h_BG = product(x_BI, weight_ih), product(dropped(h_BP, drop_h), weight_hh)
    normed = group_norm(x_BG, gain_ih, num_groups, eps) + group_norm(h_BG, gain_hh, num_groups, eps)
    c_new, o_BH = lstm_cell(biased(normed, bias_ih, bias_hh), c_BH)
    return leaving(o_BH * norm(c_new, gain_c, bias_c, eps).tanh(), h_BP, weight_hr), c_new
