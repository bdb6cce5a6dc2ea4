"""Matrix products in half and whole precision."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def write_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out = a @ b``: the product in the dtype of b, written in that of ``out``."""
    if out.dtype == b.dtype == a.dtype:
        torch.mm(a, b, out=out)
    else:
        out.copy_(a.to(b.dtype) @ b)


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """``out += a @ b``: the product in the dtype of b, the sum in that of ``out``."""
    if out.dtype == b.dtype == a.dtype:
        out.addmm_(a, b)
    else:
        out.add_(a.to(b.dtype) @ b)


def bias_sum(params: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor | None:
    """The two biases of the gates as one, [G]."""
    return params["bias_ih"].to(dtype) + params["bias_hh"].to(dtype) if "bias_ih" in params else None


def in_blocks(rows_NG: Tensor, count: int) -> Tensor:
    """See G as so many blocks, [N, count, H]."""
    return rows_NG.reshape(len(rows_NG), count, rows_NG.shape[1] // count)
