"""One step of the two LSTMs that go by the name of LayerNorm LSTM.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, lstm_cell, norm, product


def layer_norm_lstm(
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
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of a layer-normalised LSTM, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{LN}(W_{ih} x_t; \alpha_{ih}) + \mathrm{LN}(W_{hh} h_{t-1}; \alpha_{hh}) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{LN}(c_t; \alpha_c, \beta_c))\right)

    with :math:`b = b_{ih} + b_{hh}`, the mean and variance of a norm over all 4H entries (H for c), and the variance
    biased. Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, equations 20 to 22. Host sync:
    none. Mutates: nothing.

    >>> import torch
    >>> parameters = {"weight_ih": torch.ones(8, 1), "weight_hh": torch.ones(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> h, c = layer_norm_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]), **parameters)
    >>> c, h  # c is halved and carried; what goes out is half of tanh(-1) and tanh(1)
    (tensor([[1., 2.]]), tensor([[-0.3808,  0.3808]]))
    """
    x_BG, h_BG = product(x_BI, weight_ih), product(dropped(h_BP, drop_h), weight_hh)
    gates = biased(norm(x_BG, gain_ih, None, eps) + norm(h_BG, gain_hh, None, eps), bias_ih, bias_hh)
    c_new, o_BH = lstm_cell(gates, c_BH)
    return leaving(o_BH * norm(c_new, gain_c, bias_c, eps).tanh(), h_BP, weight_hr), c_new


def normalized_cell_lstm(
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
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of the layer-normalised LSTM whose normalised cell is carried on.

    As :func:`layer_norm_lstm`, but

    .. math:: c_t &= \mathrm{LN}(\sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g); \alpha_c, \beta_c) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    Source: the LayerNorm LSTM of PyTorch's fastrnns benchmark and of TensorFlow Addons. Host sync: none. Mutates:
    nothing.

    >>> import torch
    >>> parameters = {"weight_ih": torch.ones(8, 1), "weight_hh": torch.ones(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> normalized_cell_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]), **parameters)[1]
    tensor([[-1.0000,  1.0000]])
    """
    x_BG, h_BG = product(x_BI, weight_ih), product(dropped(h_BP, drop_h), weight_hh)
    gates = biased(norm(x_BG, gain_ih, None, eps) + norm(h_BG, gain_hh, None, eps), bias_ih, bias_hh)
    raw_BH, o_BH = lstm_cell(gates, c_BH)
    c_new = norm(raw_BH, gain_c, bias_c, eps)
    return leaving(o_BH * c_new.tanh(), h_BP, weight_hr), c_new
