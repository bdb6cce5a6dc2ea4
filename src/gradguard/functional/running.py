"""Running statistics as states and pure updates: a new state comes back, the old one is not touched.

Every state is elementwise: its tensors have the shape of one observation, so that one state serves n parameters at
once. An observation that is NaN or Inf leaves its element bit for bit as it was.

Shape legend: W = window, * = shape of one observation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Moments(NamedTuple):
    """Exponentially weighted mean and variance.

    Attributes:
        seen: finite observations so far, [*] in the dtype of ``mean``.
        mean: bias-corrected mean, [*].
        var: bias-corrected population variance, [*].
    """

    seen: Tensor
    mean: Tensor
    var: Tensor


class QuantileWindow(NamedTuple):
    """The last W finite observations.

    Attributes:
        values: [W, *]; NaN where nothing was written yet.
        seen: finite observations so far, int64 [*].
    """

    values: Tensor
    seen: Tensor


def new_moments(like: Tensor) -> Moments:
    """Give the state before any observation, with shape, dtype and device of ``like``."""
    return Moments(torch.zeros_like(like), torch.zeros_like(like), torch.zeros_like(like))


def update_moments(state: Moments, x: Tensor, *, decay: float) -> Moments:
    r"""Fold one observation in.

    With :math:`w_t = (1 - d) / (1 - d^t)`, the weight of the newest value in a bias-corrected exponential mean,

    .. math:: \mu_t = \mu_{t-1} + w_t (x_t - \mu_{t-1}), \qquad
        \sigma^2_t = (1 - w_t)\,(\sigma^2_{t-1} + w_t (x_t - \mu_{t-1})^2)

    so that the first value is the mean, not ``1 - d`` of it. ``decay=1`` gives the plain mean and variance.

    Args:
        state: the state so far.
        x: one observation, shape [*]. Where it is not finite, nothing changes.
        decay: d in (0, 1].

    Returns:
        The new state, dtype and device of ``state``.

    Raises:
        ValueError: ``decay`` is outside (0, 1].

    Host sync: none. Mutates: nothing.

    >>> state = new_moments(torch.zeros(()))
    >>> for value in (1.0, 3.0, float("nan")):
    ...     state = update_moments(state, torch.tensor(value), decay=1.0)
    >>> state
    Moments(seen=tensor(2.), mean=tensor(2.), var=tensor(1.))
    """
    if not 0 < decay <= 1:
        raise ValueError(f"update_moments needs 0 < decay <= 1, got {decay}.")
    seen, x = state.seen + 1, x.to(state.mean)
    weight = 1 / seen if decay == 1 else (1 - decay) / (1 - decay**seen)
    delta = x - state.mean
    mean = state.mean + weight * delta
    var = (1 - weight) * (state.var + weight * delta.square())
    keep = x.isfinite()
    return Moments(*(torch.where(keep, new, old) for new, old in zip((seen, mean, var), state, strict=True)))


def new_quantile_window(like: Tensor, window: int) -> QuantileWindow:
    """Give an empty window over ``window`` observations that have shape, dtype and device of ``like``."""
    if window < 1:
        raise ValueError(f"new_quantile_window needs window >= 1, got {window}.")
    return QuantileWindow(like.new_full((window, *like.shape), torch.nan), torch.zeros_like(like, dtype=torch.int64))


def update_quantile_window(state: QuantileWindow, x: Tensor) -> QuantileWindow:
    """Write one observation over the oldest one; where it is not finite, nothing changes.

    Args:
        state: the window so far.
        x: one observation, shape [*].

    Returns:
        The new window, dtype and device of ``state``.

    Host sync: none. Mutates: nothing.
    """
    window = len(state.values)
    slots = torch.arange(window, device=state.values.device).reshape(-1, *[1] * state.seen.ndim)
    x, keep = x.to(state.values), x.isfinite()
    values = torch.where((slots == state.seen % window) & keep, x, state.values)
    return QuantileWindow(values, torch.where(keep, state.seen + 1, state.seen))


def quantile(state: QuantileWindow, q: float) -> Tensor:
    """Quantile of what the window holds, linearly interpolated; NaN where it holds nothing.

    Args:
        state: the window.
        q: which quantile, in [0, 1].

    Returns:
        Shape [*], dtype and device of the window.

    Raises:
        ValueError: ``q`` is outside [0, 1].

    Host sync: none. Mutates: nothing.

    >>> window = new_quantile_window(torch.zeros(()), 3)
    >>> for value in (9.0, 1.0, 2.0, 3.0):
    ...     window = update_quantile_window(window, torch.tensor(value))
    >>> quantile(window, 0.5)
    tensor(2.)
    """
    if not 0 <= q <= 1:
        raise ValueError(f"quantile needs 0 <= q <= 1, got {q}.")
    window = len(state.values)
    held = state.seen.clamp(max=window)
    ordered = state.values.sort(dim=0).values  # NaN sorts last, so what is held comes first
    rank = q * (held - 1).clamp(min=0).to(ordered.dtype)
    low, high = rank.floor().long(), rank.ceil().long()
    at_low, at_high = (ordered.gather(0, i.unsqueeze(0)).squeeze(0) for i in (low, high))
    return torch.lerp(at_low, at_high, rank - low)
