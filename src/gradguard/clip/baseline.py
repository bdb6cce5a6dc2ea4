"""What norm is usual, and how far norms usually are from it: the two parts that a z-score needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, NamedTuple, final

import torch

from gradguard.arguments import share, whole_number
from gradguard.clip.settings import written
from gradguard.functional import (
    Moments,
    QuantileWindow,
    age,
    new_moments,
    new_quantile_window,
    quantile,
    update_moments,
    update_quantile_window,
)
from gradguard.functional.number import Number, as_tensor, is_finite, scalar, sqrt, square, where

MAD_OF_NORMAL = 1.482602218505602  # standard deviation over median absolute deviation, where values are normal
KEPT = 20  # newest norms that a window keeps when the level has changed: the others may be from before


class Usual(NamedTuple):
    """The usual norm, the usual distance from it, and whether enough was seen to say so; scalars."""

    mean: Number
    sigma: Number
    ready: Number


class AbstractBaseline(ABC):
    """Learns what is usual from one norm a step. A norm that is not finite leaves the state bit for bit as it is.

    Attributes:
        takes_raw: whether it is fed norms as they are, rather than as they were clipped.
    """

    takes_raw: ClassVar[bool]

    @abstractmethod
    def start(self, like: Number) -> Any:
        """Give the state before any norm, of floats or on the device of ``like``. Host sync: none."""

    @abstractmethod
    def update(self, state: Any, norm: Number) -> Any:
        """Take one norm in. Host sync: none."""

    @abstractmethod
    def usual(self, state: Any) -> Usual:
        """Say what is usual so far. Host sync: none."""

    @abstractmethod
    def begin_anew(self, state: Any, recent: Moments, changed: Number) -> Any:
        """Forget what came before the ``recent`` norms, where ``changed`` is true. Host sync: none."""

    def __repr__(self) -> str:
        return written(self)


@final
class Ema(AbstractBaseline):
    r"""Exponential mean and variance, after a warm-up that takes the plain ones.

    .. math:: \mu_t = \alpha \mu_{t-1} + (1 - \alpha) x_t, \qquad
        \sigma^2_t = \alpha \sigma^2_{t-1} + (1 - \alpha)(x_t - \mu_t)^2

    Args:
        alpha: decay, in [0, 1).
        warmup: norms of the warm-up, >= 1.
    """

    takes_raw = False

    def __init__(self, alpha: float = 0.97, *, warmup: int = 25) -> None:
        self.alpha, self.warmup = share("Ema", "alpha", alpha), whole_number("Ema", "warmup", warmup)

    def start(self, like: Number) -> Moments:
        """Begin with nothing seen."""
        return new_moments(like)

    def update(self, state: Moments, norm: Number) -> Moments:
        """Move mean and variance towards the norm."""
        early = update_moments(state, norm, decay=1.0)
        mean = self.alpha * state.mean + (1 - self.alpha) * norm
        var = self.alpha * state.var + (1 - self.alpha) * square(norm - mean)
        late = (state.seen >= self.warmup) & is_finite(norm)
        return Moments(early.seen, where(late, mean, early.mean), where(late, var, early.var))

    def usual(self, state: Moments) -> Usual:
        """Give the mean and the root of the variance."""
        return Usual(state.mean, sqrt(state.var), state.seen >= self.warmup)

    def begin_anew(self, state: Moments, recent: Moments, changed: Number) -> Moments:
        """Take over the moments of the recent norms."""
        return Moments(state.seen, where(changed, recent.mean, state.mean), where(changed, recent.var, state.var))


@final
class MedianMad(AbstractBaseline):
    """Median and scaled median absolute deviation of the last norms, as they are: outliers hardly move them.

    Follows a change of level by itself, after half a window.

    Args:
        window: norms to look back over, >= 2.
        warmup: norms after which it is ready, >= 1.
    """

    takes_raw = True

    def __init__(self, *, window: int = 100, warmup: int = 25) -> None:
        self.window = whole_number("MedianMad", "window", window, least=2)
        self.warmup = whole_number("MedianMad", "warmup", warmup)
        if warmup > window:
            raise ValueError(f"MedianMad needs warmup <= window, got {warmup} and {window}.")

    def start(self, like: Number) -> QuantileWindow:
        """Begin with an empty window."""
        return new_quantile_window(as_tensor(like), self.window)

    def update(self, state: QuantileWindow, norm: Number) -> QuantileWindow:
        """Write the norm over the oldest one."""
        return update_quantile_window(state, as_tensor(norm))

    def usual(self, state: QuantileWindow) -> Usual:
        """Give the median and the scaled deviation."""
        median = quantile(state, 0.5)
        deviation = quantile(state._replace(values=(state.values - median).abs()), 0.5)
        return Usual(scalar(median), MAD_OF_NORMAL * scalar(deviation), scalar(state.seen) >= self.warmup)

    def begin_anew(self, state: QuantileWindow, recent: Moments, changed: Number) -> QuantileWindow:
        """Keep the newest norms only."""
        return state._replace(values=state.values.masked_fill((age(state) >= KEPT) & changed, torch.nan))
