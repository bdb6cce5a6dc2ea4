"""The gates of the LSTM family, i, f, g and o, and what of their backward pass does not depend on the recurrence.

With z the sum that goes into a gate, m = o * tanh(c) what comes out, and c = f * c_before + i * g:

    dL/dz_o = dL/dm * tanh(c) * o (1 - o)           dL/dc gains dL/dm * o (1 - tanh(c)^2)
    dL/dz_i = dL/dc * g * i (1 - i)
    dL/dz_f = dL/dc * c_before * f (1 - f)
    dL/dz_g = dL/dc * i (1 - g^2)                   dL/dc_before = dL/dc * f

All that stands to the right of a dL/dm or dL/dc is known beforehand: it is computed for many steps at once.

Shape legend: b = rows of a step, n = rows of some steps, N = rows of all steps, H = hidden, G = 4 * H.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.nn.order import Order


class ForwardStep(NamedTuple):
    """What the forward pass of one step reads and writes."""

    number: int
    z: Tensor  # the sums that go into the gates, over which the gates are written, [b, G]
    i_f: Tensor  # parts of it; of a cell without i, f alone
    i: Tensor
    f: Tensor
    g: Tensor
    o: Tensor
    tanh: Tensor  # written: the tanh that leaves the cell, [b, H]
    m: Tensor  # written: o * tanh, [b, H]


def forward_steps(gates_NG: Tensor, tanh_NH: Tensor, m_NH: Tensor, order: Order) -> Iterator[ForwardStep]:
    """Cut what all steps write into views of each, in the order in which they come."""
    n, end = tanh_NH.shape[1], gates_NG.shape[1]
    f, g, o = ((end - blocks * n, end - (blocks - 1) * n) for blocks in (3, 2, 1))
    bounds = (0, g[0]), (0, n), f, g, o
    views = gates_NG, *(gates_NG[:, low:high] for low, high in bounds), tanh_NH, m_NH
    return map(ForwardStep, count(), *map(order.parts, views))


class Factors(NamedTuple):
    """By which a step's gradients are multiplied."""

    cell: Tensor  # dL/dc, for those of i, f and g: [n, 3, H]
    before: Tensor  # dL/dc, for that of the c before: [n, H]
    out: Tensor  # dL/dm, for that of o: [n, H]
    through: Tensor  # dL/dm, for its share in dL/dc: [n, H]


class BackStep(NamedTuple):
    """What the backward pass of one step reads, and writes (views of it); the factors last."""

    d_z: Tensor  # written: gradient of the sums of all gates, [b, G]
    d_cell: Tensor  # of those of i, f and g in it, [b, 3, H]
    d_out: Tensor  # of that of o, [b, H]
    d_projected: Tensor | None  # written: gradient of h, for that of the projection
    of_cell: Tensor
    of_before: Tensor
    of_out: Tensor
    through: Tensor


def gradient_factors(gates_nG: Tensor, tanh_nH: Tensor, c_before_nH: Tensor) -> Factors:
    """Compute the factors of some steps."""
    gates = gates_nG.unflatten(1, (4, tanh_nH.shape[1]))
    factors = torch.addcmul(gates, gates, gates, value=-1)
    i, f, g, o = gates.unbind(1)
    of_i, of_f, of_g, of_o = factors.unbind(1)
    of_i.mul_(g)
    of_f.mul_(c_before_nH)
    of_o.mul_(tanh_nH)
    torch.addcmul(i, i, g * g, value=-1, out=of_g)
    return Factors(factors[:, :3], f, of_o, torch.addcmul(o, o, tanh_nH * tanh_nH, value=-1))
