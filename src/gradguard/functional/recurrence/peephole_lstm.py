"""One step of an LSTM with peepholes.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, product


def peephole_lstm(
    x_BI: Tensor,
    h_BP: Tensor,
    c_BH: Tensor,
    *,
    weight_ih: Tensor,
    weight_hh: Tensor,
    weight_c: Tensor,
    bias_ih: Tensor | None = None,
    bias_hh: Tensor | None = None,
    weight_hr: Tensor | None = None,
    drop_h: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of an LSTM whose gates see the cell.

    .. math:: [i; f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f + p_f \odot c_{t-1}) \odot c_{t-1} + \sigma(i + p_i \odot c_{t-1}) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o + p_o \odot c_t) \odot \tanh(c_t)\right)

    ``weight_c``, [3H], holds :math:`p_i`, :math:`p_f` and :math:`p_o`. ``drop_h``, [B, P], multiplies the h that enters
    the product: the mask of variational dropout. Source: Gers, Schraudolph and Schmidhuber 2002, "Learning precise
    timing with LSTM recurrent networks", in the form of Graves 2013, arXiv 1308.0850, equations 7 to 11. Host sync:
    none. Mutates: nothing.

    >>> import torch
    >>> zero = torch.zeros(4, 1)
    >>> shut = torch.tensor([0.0, -1000.0, 0.0])  # a cell of 1 shuts the forget gate
    >>> peephole_lstm(zero[:1], zero[:1], torch.ones(1, 1), weight_ih=zero, weight_hh=zero, weight_c=shut)[1]
    tensor([[0.]])
    """
    gates = biased(product(x_BI, weight_ih) + product(dropped(h_BP, drop_h), weight_hh), bias_ih, bias_hh)
    i, f, g, o = gates.chunk(4, dim=-1)
    p_i, p_f, p_o = weight_c.to(gates.dtype).chunk(3, dim=-1)
    c_new = (f + p_f * c_BH).sigmoid() * c_BH + (i + p_i * c_BH).sigmoid() * g.tanh()
    return leaving((o + p_o * c_new).sigmoid() * c_new.tanh(), h_BP, weight_hr), c_new
