"""One step of each recurrent cell, and a loop over steps, in plain differentiable torch: slow, and what the paper says.

The faster kernels of ``gradguard.nn`` are held against these functions, and every derivative that they have no code for
(forward mode, second order, per sample) is taken through them.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order). h has the dtype of x; c is float32 or wider, and what is summed up is, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear

Step = Callable[..., tuple[Tensor, ...]]


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
) -> tuple[Tensor, Tensor]:
    r"""Take one step of an LSTM.

    .. math:: [i; f; g; o] &= W_{ih} x_t + b_{ih} + W_{hh} h_{t-1} + b_{hh} \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    without :math:`W_{hr}` where there is no projection. Source: Hochreiter and Schmidhuber 1997; the forget gate of
    Gers et al. 2000; the projection of Sak et al. 2014. Host sync: none. Mutates: nothing.

    >>> zero, one = torch.zeros(1, 1), torch.ones(4, 1)
    >>> h, c = lstm(zero, zero, torch.ones(1, 1), weight_ih=one, weight_hh=one)
    >>> c  # half of it is kept, and nothing added
    tensor([[0.5000]])
    """
    gates = _summed(c_BH, linear(x_BI, weight_ih), linear(h_BP, weight_hh), bias_ih, bias_hh)
    c_new, o_BH = _cell(gates, c_BH)
    return _output(o_BH * c_new.tanh(), h_BP, weight_hr), c_new


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
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of a layer-normalised LSTM, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{LN}(W_{ih} x_t; \alpha_{ih}) + \mathrm{LN}(W_{hh} h_{t-1}; \alpha_{hh}) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{LN}(c_t; \alpha_c, \beta_c))\right)

    with :math:`b = b_{ih} + b_{hh}`, the mean and variance of a norm over all 4H entries (H for c), and the variance
    biased. Source: Ba, Kiros and Hinton 2016, "Layer normalization", arXiv 1607.06450, equations 20 to 22. Host sync:
    none. Mutates: nothing.

    >>> parameters = {"weight_ih": torch.ones(8, 1), "weight_hh": torch.ones(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> h, c = layer_norm_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]), **parameters)
    >>> c, h  # c is halved and carried; what goes out is half of tanh(-1) and tanh(1)
    (tensor([[1., 2.]]), tensor([[-0.3808,  0.3808]]))
    """
    x_BG, h_BG = linear(x_BI, weight_ih).to(c_BH.dtype), linear(h_BP, weight_hh).to(c_BH.dtype)
    gates = _summed(c_BH, _norm(x_BG, gain_ih, None, eps), _norm(h_BG, gain_hh, None, eps), bias_ih, bias_hh)
    c_new, o_BH = _cell(gates, c_BH)
    return _output(o_BH * _norm(c_new, gain_c, bias_c, eps).tanh(), h_BP, weight_hr), c_new


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
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor]:
    r"""Take one step of the layer-normalised LSTM whose normalised cell is carried on.

    As :func:`layer_norm_lstm`, but

    .. math:: c_t &= \mathrm{LN}(\sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g); \alpha_c, \beta_c) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(c_t)\right)

    Source: the LayerNorm LSTM of PyTorch's fastrnns benchmark and of TensorFlow Addons. Host sync: none. Mutates:
    nothing.

    >>> parameters = {"weight_ih": torch.ones(8, 1), "weight_hh": torch.ones(8, 2), "gain_ih": torch.ones(8)}
    >>> parameters |= {"gain_hh": torch.ones(8), "gain_c": torch.ones(2)}
    >>> normalized_cell_lstm(torch.ones(1, 1), torch.ones(1, 2), torch.tensor([[2.0, 4.0]]), **parameters)[1]
    tensor([[-1.0000,  1.0000]])
    """
    x_BG, h_BG = linear(x_BI, weight_ih).to(c_BH.dtype), linear(h_BP, weight_hh).to(c_BH.dtype)
    gates = _summed(c_BH, _norm(x_BG, gain_ih, None, eps), _norm(h_BG, gain_hh, None, eps), bias_ih, bias_hh)
    raw_BH, o_BH = _cell(gates, c_BH)
    c_new = _norm(raw_BH, gain_c, bias_c, eps)
    return _output(o_BH * c_new.tanh(), h_BP, weight_hr), c_new


def unroll(
    step: Step, inputs: Sequence[Tensor], states: Sequence[Tensor], *, reverse: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Loop over time; the batch may shrink from one step to the next, as in a packed sequence.

    Args:
        step: takes x, then the states, and gives the new states; the first is the output.
        inputs: x of each step, [B_t, I], in the order of time, with B_t never growing.
        states: before the first step, [B_0, *] each.
        reverse: the last step comes first; a sequence that is shorter starts late, from its own state.

    Returns:
        Each state at every step, all steps' rows under one another in the order of time, [sum of B_t, *]; and each
        state after the last step of its sequence, [B_0, *].

    Host sync: none. Mutates: nothing.

    >>> ones = torch.ones(2, 1), torch.ones(1, 1)  # two sequences, one of two steps and one of one
    >>> unroll(lambda x, h: (x + h,), ones, [torch.zeros(2, 1)])
    ([tensor([[1.],
            [1.],
            [2.]])], [tensor([[2.],
            [1.]])])
    """
    now = list(states)
    seen: list[list[Tensor]] = [[] for _ in now]
    for x in reversed(inputs) if reverse else inputs:
        rows = len(x)
        new = step(x, *(state[:rows] for state in now))
        for i, state in enumerate(new):
            seen[i].append(state)
            now[i] = state if rows == len(now[i]) else torch.cat([state, now[i][rows:]])
    in_time = [parts[::-1] if reverse else parts for parts in seen]
    return [torch.cat(parts) if parts else state[:0].clone() for parts, state in zip(in_time, states, strict=True)], now


def _summed(like: Tensor, x: Tensor, h: Tensor, bias_ih: Tensor | None, bias_hh: Tensor | None) -> Tensor:
    total = x.to(like.dtype) + h.to(like.dtype)
    return total if bias_ih is None or bias_hh is None else total + (bias_ih.to(like.dtype) + bias_hh.to(like.dtype))


def _norm(x: Tensor, gain: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    """Layer-norm rows; written out below ``torch.func``: autograd has no right third derivative of the fused one."""
    gain, shift = gain.to(x.dtype), None if shift is None else shift.to(x.dtype)
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None:
        return layer_norm(x, x.shape[-1:], gain, shift, eps)
    centred = x - x.mean(-1, keepdim=True)
    normed = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt() * gain
    return normed if shift is None else normed + shift


def _cell(gates_BG: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    i, f, g, o = gates_BG.chunk(4, dim=-1)
    return f.sigmoid() * c_BH + i.sigmoid() * g.tanh(), o.sigmoid()


def _output(m_BH: Tensor, like: Tensor, weight_hr: Tensor | None) -> Tensor:
    return m_BH.to(like.dtype) if weight_hr is None else linear(m_BH.to(like.dtype), weight_hr)
