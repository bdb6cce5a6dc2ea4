"""Clip factors: what to multiply a gradient by, from its norm and a limit.

Numbers may be floats on the host or tensors on a device. Every factor is positive and finite. A norm that is NaN or Inf
gives 1: a gradient that is not finite is left as it is, so that nobody takes it for a clipped one.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from gradguard.functional.number import Number, clamp, divide, is_finite, where

_MOST = torch.finfo(torch.float32).max  # a larger one would lift what is next to nothing to infinity


def limit_factor(norm: Number, limit: Number, *, eps: float = 0.0) -> Number:
    r"""Factor that brings a norm down to a limit, and leaves one below the limit as it is.

    .. math:: c = \min\Big(1, \frac{\ell}{\|g\| + \varepsilon}\Big)

    Args:
        norm: a float, or a tensor of any shape; >= 0.
        limit: broadcasts against ``norm``, >= 0.
        eps: added to the norm, >= 0.

    Returns:
        In (0, 1], shape of ``norm`` and ``limit`` together; dtype and device of ``norm``.

    Host sync: none. Mutates: nothing.

    >>> limit_factor(torch.tensor([4.0, 0.5, 0.0, torch.inf]), 1.0)
    tensor([0.2500, 1.0000, 1.0000, 1.0000])
    """
    factor = clamp(divide(limit, norm + eps), _least(norm), 1.0)
    return where(is_finite(norm) & (norm > 0), factor, 1.0)


def band_factor(norm: Number, low: float, high: float) -> Number:
    r"""Factor that brings a norm into a band: down to ``high``, up to ``low``.

    .. math:: c = \frac{\mathrm{clamp}(\|g\|, \ell, h)}{\|g\|}

    Args:
        norm: a float, or a tensor of any shape; >= 0; 0 has no direction and stays 0.
        low: >= 0.
        high: > 0, >= ``low``.

    Returns:
        Positive and finite; shape, dtype and device of ``norm``.

    Host sync: none. Mutates: nothing.

    >>> band_factor(torch.tensor([4.0, 0.5, 0.1, 0.0]), 0.2, 1.0)
    tensor([0.2500, 1.0000, 2.0000, 1.0000])
    """
    return target_factor(norm, clamp(norm, low, high))


def target_factor(norm: Number, target: Number) -> Number:
    r"""Factor that gives a gradient the norm ``target``, whatever it had.

    .. math:: c = \frac{t}{\|g\|}

    Args:
        norm: a float, or a tensor of any shape; >= 0; 0 has no direction and stays 0.
        target: broadcasts against ``norm``, > 0.

    Returns:
        Positive and finite; shape, dtype and device of ``norm``.

    Host sync: none. Mutates: nothing.

    >>> target_factor(torch.tensor([4.0, 0.0]), torch.tensor(2.0))
    tensor([0.5000, 1.0000])
    """
    factor = clamp(divide(target, norm), _least(norm), _MOST)
    return where(is_finite(norm) & (norm > 0) & is_finite(target), factor, 1.0)


def _least(norm: Number) -> float:
    return torch.finfo(norm.dtype).tiny if isinstance(norm, Tensor) else sys.float_info.min
