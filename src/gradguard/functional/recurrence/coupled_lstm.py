"""One step of an LSTM whose input gate is coupled to its forget gate.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 3 * H (gates f,
g, o). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, product


def coupled_lstm(
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
    r"""Take one step of an LSTM that lets in as much as it forgets.

    .. math:: [f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + (1 - \sigma(f)) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    ``drop_h``, [B, P], multiplies the h that enters the product: the mask of variational dropout. Source: Greff et al.
    2017, "LSTM: a search space odyssey", arXiv 1503.04069, variant CIFG, without peepholes. Host sync: none. Mutates:
    nothing.

    >>> import torch
    >>> zero, one = torch.zeros(3, 1), torch.ones(1, 1)
    >>> large = torch.tensor([0.0, 100.0, 0.0])  # g is 1, f a half
    >>> coupled_lstm(one, one, 3 * one, weight_ih=zero, weight_hh=zero, bias_ih=large)[1]
    tensor([[2.]])
    """
    gates = biased(product(x_BI, weight_ih) + product(dropped(h_BP, drop_h), weight_hh), bias_ih, bias_hh)
    f, g, o = gates.chunk(3, dim=-1)
    new = g.tanh()
    c_new = new + f.sigmoid() * (c_BH - new)
    return leaving(o.sigmoid() * c_new.tanh(), h_BP, weight_hr), c_new
