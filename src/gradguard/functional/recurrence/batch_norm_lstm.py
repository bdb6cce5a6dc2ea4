"""One step of the batch-normalised LSTM.

Shape legend: B = batch, I = input, H = hidden, P = width of h (H, or the size of the projection), G = 4 * H (gates i,
f, g, o: torch's order), S = width of what is normed. h has the dtype of x; c is float32 or wider, and what is summed up
is, too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from gradguard.functional.recurrence.parts import biased, dropped, leaving, lstm_cell, product


class Moments(NamedTuple):
    """What a batch norm normalises with.

    Attributes:
        mean: [S].
        var: [S], biased.
        rows: over how many they were taken, a number or a tensor of none; None where they were given.
    """

    mean: Tensor
    var: Tensor
    rows: Tensor | int | None = None


def batch_norm_lstm(
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
    given: tuple[Moments, Moments, Moments] | None = None,
    before: tuple[Moments, Moments, Moments] | None = None,
    eps: float = 1e-5,
    sync: bool = False,
) -> tuple[Tensor, Tensor, tuple[Moments, Moments, Moments]]:
    r"""Take one step of a batch-normalised LSTM, whose cell is carried as it is.

    .. math:: [i; f; g; o] &= \mathrm{BN}(W_{ih} x_t; \gamma_{ih}) + \mathrm{BN}(W_{hh} h_{t-1}; \gamma_{hh}) + b \\
        c_t &= \sigma(f) \odot c_{t-1} + \sigma(i) \odot \tanh(g) \\
        h_t &= W_{hr} \left(\sigma(o) \odot \tanh(\mathrm{BN}(c_t; \gamma_c, \beta_c))\right)

    with :math:`b = b_{ih} + b_{hh}`. Mean and biased variance are those of the batch, or ``given`` ones: of what x
    gives to the gates, of what h gives, and of c. With ``sync`` the batch is that of all processes, each of which must
    take the step, with no row if it has none left. One row has no variance: with the moments of the step ``before``, as
    constants, it takes these. Source: Cooijmans et al. 2017, "Recurrent batch normalization",
    arXiv 1603.09025, equations 6 to 8. Host sync: none. Mutates: nothing.

    Returns:
        h, [B, P]; c, [B, H]; and the three moments.

    >>> parameters = {"weight_ih": torch.ones(4, 1), "weight_hh": torch.ones(4, 1), "gain_ih": torch.ones(4)}
    >>> parameters |= {"gain_hh": torch.ones(4), "gain_c": torch.ones(1)}
    >>> zero = torch.zeros(2, 1)
    >>> h, c, moments = batch_norm_lstm(torch.tensor([[1.0], [3.0]]), zero, zero, **parameters)
    >>> moments[0].mean, moments[0].var
    (tensor([2., 2., 2., 2.]), tensor([1., 1., 1., 1.]))
    """
    x_BG, h_BG = product(x_BI, weight_ih), product(dropped(h_BP, drop_h), weight_hh)
    last = before or (None, None, None)
    of_x = given[0] if given else settled(moments(x_BG, sync=sync), last[0])
    of_h = given[1] if given else settled(moments(h_BG, sync=sync), last[1])
    gates = biased(normed(x_BG, of_x, gain_ih, eps) + normed(h_BG, of_h, gain_hh, eps), bias_ih, bias_hh)
    c_new, o_BH = lstm_cell(gates, c_BH)
    of_c = given[2] if given else settled(moments(c_new, sync=sync), last[2])
    m_BH = o_BH * biased(normed(c_new, of_c, gain_c, eps), bias_c).tanh()
    return leaving(m_BH, h_BP, weight_hr), c_new, (of_x, of_h, of_c)


def moments(rows_BS: Tensor, *, sync: bool = False) -> Moments:
    """Take mean and biased variance of some rows, with ``sync`` of those of all processes."""
    if not (sync and many_ranks()):
        count = max(len(rows_BS), 1)
        mean = rows_BS.sum(0) / count
        return Moments(mean, (rows_BS - mean).square().sum(0) / count, len(rows_BS))
    total = sum_over_ranks(torch.cat([rows_BS.sum(0), rows_BS.new_full((1,), len(rows_BS))]))
    mean, count_ = total[:-1] / total[-1].clamp(min=1), total[-1].detach()
    return Moments(mean, sum_over_ranks((rows_BS - mean).square().sum(0)) / count_.clamp(min=1), count_)


def settled(own: Moments, before: Moments | None) -> Moments:
    """Give a step's moments; of fewer than two rows those of the step before, as constants."""
    if before is None or own.rows is None:
        return own
    if isinstance(own.rows, int):
        return own if own.rows > 1 else Moments(before.mean.detach(), before.var.detach(), own.rows)
    mean = torch.where(own.rows > 1, own.mean, before.mean.detach())
    return Moments(mean, torch.where(own.rows > 1, own.var, before.var.detach()), own.rows)


def normed(rows_BS: Tensor, by: Moments, gain: Tensor, eps: float) -> Tensor:
    """Normalise rows."""
    return (rows_BS - by.mean) * ((by.var + eps).rsqrt() * gain.to(rows_BS.dtype))


def many_ranks() -> bool:
    """Say whether there is another process to share statistics with."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class SumOverRanks(torch.autograd.Function):
    """A sum over all processes, whose gradient is one, too."""

    @staticmethod
    def forward(t: Tensor) -> Tensor:
        """Add up."""
        found = t.clone()
        dist.all_reduce(found)
        return found

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Nothing is needed."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        """Each process's share is in the sum of all."""
        return sum_over_ranks(grad.contiguous())


def sum_over_ranks(t: Tensor) -> Tensor:
    """Add a tensor up over all processes."""
    found: Tensor = SumOverRanks.apply(t)  # type: ignore[no-untyped-call]  # torch's own lacks a type
    return found
