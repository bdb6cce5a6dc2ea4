"""How a gradient that goes back through time fades or grows with the lag.

Shape legend: L = lags.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

LEFT = 0.01  # share of the largest size at which a memory ends
FLOOR = 1e-30  # of the largest: what is smaller is near where float32 underflows, and in no line
_NOISE = 1e-24  # variance of the logarithm of sizes that differ by rounding alone


class Decay(NamedTuple):
    """What becomes of a gradient over the lags.

    Attributes:
        rate: slope of the logarithm of its size, in 1 / step: below 0 where it fades; NaN where fewer than two lags
            have a size.
        fit: share of the logarithm's variance that the line explains, in [0, 1]; NaN as ``rate``.
        horizon: the lag from which on less than 1 % of the largest size is left, between two lags on a line in the
            logarithm; infinite where that is not within the sequence, NaN where there is no size.
        growth: largest size over that at lag 0, >= 1; infinite where it overflows on its way.
    """

    rate: float
    fit: float
    horizon: float
    growth: float


def decay(sizes_L: Tensor, weights_L: Tensor | None = None) -> Decay:
    r"""Measure how sizes change with the lag.

    .. math:: \ln s_L \approx a + \mathrm{rate} \cdot L

    Args:
        sizes_L: of the gradient at lag 0, 1, 2 ..., on the CPU.
        weights_L: of the lags in the line, such as the number of sequences that are long enough.

    Returns:
        Rate, fit, horizon and growth.

    Host sync: none. Mutates: nothing.

    >>> rate, fit, horizon, growth = decay(0.5 ** torch.arange(20.0))
    >>> f"{rate:.3f} {fit:.1f} {horizon:.2f} {growth:.0f}"
    '-0.693 1.0 6.64 1'
    """
    sizes = sizes_L.double()
    weights = torch.ones_like(sizes) if weights_L is None else weights_L.double()
    bad = (~sizes.isfinite()).nonzero().flatten()
    overflows = len(bad) > 0 and int(bad[0]) > 0
    sizes = sizes[: int(bad[0])] if len(bad) else sizes
    if not len(sizes) or not sizes.max() > 0:
        return Decay(math.nan, math.nan, math.nan, math.nan)
    first = sizes[0] if sizes[0] > 0 else sizes[sizes > 0][0]
    growth = math.inf if overflows else float(sizes.max() / first)
    return Decay(*_line(sizes, weights[: len(sizes)]), math.inf if overflows else _horizon(sizes), growth)


def _line(sizes: Tensor, weights: Tensor) -> tuple[float, float]:
    used = (sizes > FLOOR * sizes.max()) & (weights > 0)
    if int(used.sum()) < 2:
        return math.nan, math.nan
    x, y, w = used.nonzero().flatten().double(), sizes[used].log(), weights[used] / weights[used].sum()
    x, y = x - (w * x).sum(), y - (w * y).sum()
    rate = (w * x * y).sum() / (w * x * x).sum()
    total = (w * y * y).sum()
    rest = (w * (y - rate * x) ** 2).sum()
    return float(rate), max(0.0, float(1 - rest / total)) if total > _NOISE else 1.0


def _horizon(sizes: Tensor) -> float:
    limit, peak = LEFT * sizes.max(), int(sizes.argmax())
    below = (sizes[peak:] < limit).nonzero().flatten()
    if not len(below):
        return math.inf
    lag = peak + int(below[0])
    before, after = float(sizes[lag - 1]), float(sizes[lag])
    if after <= 0:
        return float(lag)
    return lag - 1 + math.log(before / float(limit)) / math.log(before / after)
