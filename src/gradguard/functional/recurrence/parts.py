"""What several cells have in common: sums of products and biases, norms, the cell of an LSTM, and what leaves it.

Shape legend: B = batch, H = hidden, P = width of h, G = what goes into the gates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear


def wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of cell states, sums and statistics: float32 for what is narrower."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def product(x: Tensor, weight: Tensor) -> Tensor:
    """The product with a weight's transpose, in the wide dtype."""
    return linear(x, weight).to(wide(x.dtype))


def biased(z: Tensor, *biases: Tensor | None) -> Tensor:
    """Add the sum of those biases that there are."""
    given = [bias.to(z.dtype) for bias in biases if bias is not None]
    return z + sum(given[1:], given[0]) if given else z


def activated(z: Tensor, nonlinearity: str) -> Tensor:
    """Apply "tanh" or "relu".

    Raises:
        ValueError: it is neither.
    """
    if nonlinearity not in ("tanh", "relu"):
        raise ValueError(f"Unknown nonlinearity {nonlinearity!r}: 'tanh' or 'relu'.")
    return z.tanh() if nonlinearity == "tanh" else z.relu()


def dropped(h_BP: Tensor, drop_h: Tensor | None) -> Tensor:
    """The h that enters the products: times the factors of variational dropout."""
    return h_BP if drop_h is None else h_BP * drop_h


def norm(x: Tensor, gain: Tensor | None, shift: Tensor | None, eps: float) -> Tensor:
    """Layer-norm rows; written out below ``torch.func``: autograd has no right third derivative of the fused one."""
    gain, shift = None if gain is None else gain.to(x.dtype), None if shift is None else shift.to(x.dtype)
    if not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is None:
        return layer_norm(x, x.shape[-1:], gain, shift, eps)
    centred = x - x.mean(-1, keepdim=True)
    normed = centred * (centred.square().mean(-1, keepdim=True) + eps).rsqrt()
    normed = normed if gain is None else normed * gain
    return normed if shift is None else normed + shift


def rms_norm(x: Tensor, gain: Tensor, eps: float) -> Tensor:
    """Divide rows by the root of their mean square."""
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * gain.to(x.dtype)


def group_norm(x: Tensor, gain: Tensor, groups: int, eps: float) -> Tensor:
    """Norm each of some equally wide blocks of a row; the gain is for all of it."""
    blocks = x.unflatten(-1, (groups, x.shape[-1] // groups))
    return norm(blocks, None, None, eps).flatten(-2) * gain.to(x.dtype)


def lstm_cell(gates_BG: Tensor, c_BH: Tensor) -> tuple[Tensor, Tensor]:
    """The new c, and the output gate, from what goes into the gates i, f, g, o."""
    i, f, g, o = gates_BG.chunk(4, dim=-1)
    return f.sigmoid() * c_BH + i.sigmoid() * g.tanh(), o.sigmoid()


def leaving(m_BH: Tensor, like: Tensor, weight_hr: Tensor | None) -> Tensor:
    """The new h from what leaves the cell, projected where there is a projection, in the dtype of the old one."""
    return m_BH.to(like.dtype) if weight_hr is None else linear(m_BH.to(like.dtype), weight_hr)
