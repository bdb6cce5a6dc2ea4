"""Running statistics as states and pure updates: a new state comes back, the old one is not touched.

Every state is elementwise: its tensors have the shape of one observation, so that one state serves n parameters at
once. An observation that is NaN or Inf leaves its element bit for bit as it was.

Shape legend: W = window, * = shape of one observation.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.functional.number import Number, is_finite, square, where


class Moments(NamedTuple):
    """Exponentially weighted mean and variance.

    Attributes:
        seen: finite observations so far, [*] in the dtype of ``mean``.
        mean: bias-corrected mean, [*].
        var: bias-corrected population variance, [*].
    """

    seen: Number
    mean: Number
    var: Number


class QuantileWindow(NamedTuple):
    """The last W finite observations.

    Attributes:
        values: [W, *]; NaN where nothing was written yet.
        seen: finite observations so far, int64 [*].
    """

    values: Tensor
    seen: Tensor


def new_moments(like: Number) -> Moments:
    """Give the state before any observation: of a float, or with shape, dtype and device of a tensor."""
    return Moments(*(torch.zeros_like(like) if isinstance(like, Tensor) else 0.0 for _ in Moments._fields))


def update_moments(state: Moments, x: Number, *, decay: float) -> Moments:
    r"""Fold one observation in.

    With :math:`w_t = (1 - d) / (1 - d^t)`, the weight of the newest value in a bias-corrected exponential mean,

    .. math:: \mu_t = \mu_{t-1} + w_t (x_t - \mu_{t-1}), \qquad
        \sigma^2_t = (1 - w_t)\,(\sigma^2_{t-1} + w_t (x_t - \mu_{t-1})^2)

    so that the first value is the mean, not ``1 - d`` of it. ``decay=1`` gives the plain mean and variance.

    Args:
        state: the state so far.
        x: one observation, a float where the state is of floats, else of shape [*]. Where it is not finite, nothing
            changes.
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
    seen = state.seen + 1
    if isinstance(x, Tensor):
        x = x.to(state.mean)
    weight = 1 / seen if decay == 1 else (1 - decay) / (1 - decay**seen)
    delta = x - state.mean
    mean = state.mean + weight * delta
    var = (1 - weight) * (state.var + weight * square(delta))
    keep = is_finite(x)
    return Moments(where(keep, seen, state.seen), where(keep, mean, state.mean), where(keep, var, state.var))


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


def age(state: QuantileWindow) -> Tensor:
    """Say how many observations ago each slot was written, [W, *]: 0 for the newest. Host sync: none.

    >>> window = new_quantile_window(torch.zeros(()), 3)
    >>> for value in (9.0, 1.0, 2.0, 3.0):
    ...     window = update_quantile_window(window, torch.tensor(value))
    >>> age(window), window.values
    (tensor([0, 2, 1]), tensor([3., 1., 2.]))
    """
    window = len(state.values)
    slots = torch.arange(window, device=state.values.device).reshape(-1, *[1] * state.seen.ndim)
    return (state.seen - 1 - slots) % window


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
    held = state.values.isfinite().sum(dim=0)
    ordered = state.values.sort(dim=0).values  # NaN sorts last, so what is held comes first
    rank = q * (held - 1).clamp(min=0).to(ordered.dtype)
    low, high = rank.floor().long(), rank.ceil().long()
    at_low, at_high = (ordered.gather(0, i.unsqueeze(0)).squeeze(0) for i in (low, high))
    return torch.lerp(at_low, at_high, rank - low)
