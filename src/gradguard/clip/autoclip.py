"""Clipping at a percentile of the norms seen so far."""

from __future__ import annotations

from typing import NamedTuple, Optional, final

import torch
from torch import Tensor

from gradguard.arguments import number, patience, whole_number
from gradguard.clip.base import AbstractClipper
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.clip.state import observed, zero
from gradguard.functional import (
    Level,
    Measurement,
    QuantileWindow,
    age,
    limit_factor,
    new_level,
    new_quantile_window,
    quantile,
    update_level,
    update_quantile_window,
)
from gradguard.functional.number import Number, as_tensor, precise

USUAL = 0.9  # quantile of the earlier norms: ninety in a hundred of a steady run lie below it


class AutoClipState(NamedTuple):
    """The last norms, and how the newest ones stand to those before them."""

    window: QuantileWindow
    level: Level


@final
class AutoClip(AbstractClipper):
    r"""Clips the total norm at the p-th percentile of the last W norms, this one included.

    .. math:: \eta_t = \mathrm{percentile}_p(\|g_{t-W+1}\|, \dots, \|g_t\|), \qquad
        g \leftarrow g \cdot \min\Big(1, \frac{\eta_t}{\|g\| + \varepsilon}\Big)

    It does not depend on the scale of the loss. With p = 10, as published, nine steps in ten are clipped: that is how
    it is meant, and why the learning rate has to be read anew. With p = 0 all gradients have the norm of the smallest
    one, with p = 100 none is clipped.

    The paper takes all norms since the start: its rule is ``zeros=True, reanchor=None``, and a window as long as the
    run.

    Args:
        percentile: p in [0, 100].
        window: W >= 1.
        eps: added to the norm, >= 0.
        zeros: whether norms of zero count, as in the paper: some of them make the percentile 0, and nothing is learnt.
        reanchor: after that many steps in a row above the usual norms of before, only these count; None for never.

    Raises:
        ValueError: an argument out of range.

    Source: Seetharaman et al. 2020, "AutoClip: adaptive gradient clipping for source separation networks", algorithm 1.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> clipper = AutoClip(50.0)
    >>> for norm in (1.0, 2.0, 30.0):
    ...     weight.grad = torch.tensor([norm])
    ...     _ = clipper.clip_([weight])
    >>> weight.grad
    tensor([2.0000])
    """

    def __init__(
        self,
        percentile: float = 10.0,
        *,
        window: int = 1000,
        eps: float = 1e-6,
        zeros: bool = False,
        reanchor: Optional[int] = 40,  # noqa: UP045  # LightningCLI reads it on every Python
    ) -> None:
        super().__init__()
        self.percentile = number("AutoClip", "percentile", percentile, least=0)
        if percentile > 100:
            raise ValueError(f"AutoClip needs 0 <= percentile <= 100, got {percentile!r}.")
        self.window = whole_number("AutoClip", "window", window)
        self.eps = number("AutoClip", "eps", eps, least=0)
        self.zeros = bool(zeros)
        self.reanchor = patience("AutoClip", reanchor)

    def bind(self, binding: Binding) -> AutoClipState:
        """Begin with an empty window."""
        nothing = as_tensor(zero(binding))
        return AutoClipState(new_quantile_window(nothing, self.window), new_level(nothing))

    def changes(self, state: AutoClipState) -> Number:
        """Say how often the statistic began anew."""
        return state.level.changes

    def rule(self, measurement: Measurement, state: AutoClipState) -> tuple[AbstractFactors, AutoClipState]:
        """Limit the total norm by the percentile."""
        total = as_tensor(observed(measurement))
        if not self.zeros:
            total = torch.where(total > 0, total, torch.nan)
        window, level = update_quantile_window(state.window, total), state.level
        if self.reanchor is not None:
            window, level = _reanchored(window, level, total, self.reanchor)
        limit = quantile(window, self.percentile / 100)
        limit = torch.where(limit.isnan(), torch.inf, limit)
        factor = limit_factor(precise(measurement.total), limit, eps=self.eps)
        return OneFactor(measurement, factor, limit), AutoClipState(window, level)


def _reanchored(window: QuantileWindow, level: Level, total: Tensor, steps: int) -> tuple[QuantileWindow, Level]:
    """Forget what is older than ``steps`` once the norms since have left it behind."""
    old = age(window) >= steps
    before = QuantileWindow(window.values.masked_fill(~old, torch.nan), window.seen)
    level, changed = update_level(level, total, total > quantile(before, USUAL), patience=steps)
    return window._replace(values=window.values.masked_fill(old & changed, torch.nan)), level
