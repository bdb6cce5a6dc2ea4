"""One step of the LSTM with RMS norms.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, lstm_cell, product, rms_norm


def rms_norm_lstm(
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
    weight_hr: Tensor | None = None,
    drop_h: Tensor | None = None,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of an LSTM with RMS norms, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{RMS}(W_{ih} x_t; \alpha_{ih}) + \mathrm{RMS}(W_{hh} h_{t-1}; \alpha_{hh}) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{RMS}(c_t; \alpha_c))\right) \\
        \mathrm{RMS}(a; \alpha) &= \alpha \odot a / \sqrt{\mathrm{mean}(a^2) + \epsilon}

    with :math:`b = b_{ih} + b_{hh}`, and the mean over all 4H entries (H for c). Source: Zhang and Sennrich 2019, "Root
    mean square layer normalization", arXiv 1910.07467, equation 4, at the places of Ba et al. 2016. Host sync: none.
    Mutates: nothing.

    >>> import torch
    >>> parameters = {"weight_ih": torch.zeros(8, 1), "weight_hh": torch.zeros(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> h, c = rms_norm_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 14.0]]), **parameters)
    >>> c, h  # c is halved and carried; what goes out is half of tanh(0.2) and tanh(1.4)
    (tensor([[1., 7.]]), tensor([[0.0987, 0.4427]]))
    """
    x_BG, h_BG = product(x_BI, weight_ih), product(dropped(h_BP, drop_h), weight_hh)
    gates = biased(rms_norm(x_BG, gain_ih, eps) + rms_norm(h_BG, gain_hh, eps), bias_ih, bias_hh)
    c_new, o_BH = lstm_cell(gates, c_BH)
    return leaving(o_BH * rms_norm(c_new, gain_c, eps).tanh(), h_BP, weight_hr), c_new
