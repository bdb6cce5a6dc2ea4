"""Notices a lasting change of level, which a statistic that distrusts outliers would take for outliers for ever.

Shape legend: * = shape of one observation.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from gradguard.functional.number import Number, is_finite, where
from gradguard.functional.running import Moments, new_moments, update_moments

SHARE = 0.8  # of the newest observations: no healthy run is that often off its level
OLD = 1e-3  # weight that what came before has in the moments by then


class Level(NamedTuple):
    """How the newest observations stand to a statistic.

    Attributes:
        off: exponentially weighted share of them that were off its level, [*]; above it less those below, where both
            are told apart.
        recent: moments of the newest ones, as they were, [*].
        changes: how often the level has changed so far, [*].
    """

    off: Number
    recent: Moments
    changes: Number


def new_level(like: Number) -> Level:
    """Give the state before any observation: of a float, or with shape, dtype and device of a tensor."""
    moments = new_moments(like)
    return Level(moments.seen, moments, moments.mean)


def update_level(state: Level, x: Number, off: Number, *, patience: int) -> tuple[Level, Number]:
    r"""Fold one observation in, and say whether the level has changed: for good, as far as can be told.

    With :math:`s_t = d s_{t-1} + (1 - d)[x_t \text{ is off}]` and :math:`d = 0.2^{1/n}`, the share s passes 0.8 after n
    observations on end that are off, sooner or later where some are not. It starts anew then.

    Args:
        state: the state so far.
        x: one observation, shape [*]. Where it is not finite, nothing changes.
        off: bool, [*]; whether it is off the level of the statistic; or 1 above it, -1 below it, 0 on it.
        patience: n >= 1.

    Returns:
        The new state, and whether to begin anew from its ``recent`` moments, bool [*].

    Host sync: none. Mutates: nothing.

    >>> state = new_level(0.0)
    >>> for step in range(1, 100):
    ...     state, changed = update_level(state, 10.0, True, patience=40)
    ...     if changed:
    ...         break
    >>> step, state.recent.mean
    (40, 10.0)
    """
    decay = (1 - SHARE) ** (1 / patience)
    finite = is_finite(x)
    side = off.to(state.off) if isinstance(off, Tensor) else float(off)
    share = where(finite, decay * state.off + (1 - decay) * side, state.off)
    changed = finite & (abs(share) >= SHARE - 1e-6)
    recent = update_moments(state.recent, x, decay=OLD ** (1 / patience))
    return Level(where(changed, 0.0, share), recent, state.changes + changed), changed
