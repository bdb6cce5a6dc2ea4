"""Matrix products in half and whole precision, and the gradients that come from all steps at once.

Shape legend: N = rows of all steps, B = batch, P = width of h, I = input, G = width of all gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gradguard.nn.order import Order


def write_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out = a @ b``: the product in the dtype of b, written in that of ``out``."""
    if out.dtype == b.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a.to(b.dtype) @ b)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out += a @ b``: the product in the dtype of b, the sum in that of ``out``."""
    if out.dtype == b.dtype:
        out.addmm_(a, b)
    else:
        out.add_(a @ b)


def bias_sum(params: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor | None:
    """The two biases of the gates as one, [G]."""
    return params["bias_ih"].to(dtype) + params["bias_hh"].to(dtype) if "bias_ih" in params else None


def recurrent_gradient(d_NG: Tensor, h_NP: Tensor, h_BP: Tensor, order: Order) -> Tensor:
    """Sum of ``d_t^T h_{t-1}`` over all steps: what the weight of h gets, [G, P]."""
    if not order.even:
        before = order.before(h_NP, h_BP)
        return d_NG.t() @ torch.cat(before[::-1] if order.reverse else before)
    rest = len(d_NG) - order.batch if order.sizes else 0
    if order.reverse:
        later, first, earlier = d_NG[:rest], d_NG[rest:], h_NP[order.batch :]
    else:
        later, first, earlier = d_NG[order.batch :], d_NG[: order.batch], h_NP[:rest]
    return torch.addmm(first.t() @ h_BP, later.t(), earlier) if order.sizes else d_NG.t() @ h_NP
