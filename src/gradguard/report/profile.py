"""What is left of the gradient over the lag, in one step, as a curve.

Shape legend: L = lags.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gradguard.detect import Profile
from gradguard.detect.wording import left
from gradguard.functional.decay import FLOOR, LEFT
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.memory import shares_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 1e-8  # share below which no curve is followed
_MANY = 5000  # points beyond which a free place for the legend is not looked for: that takes long


def plot_profile(profile: Profile, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw what is left of the gradient over the lag, and the line that was fitted to its logarithm.

    The lag to the right, the share of the largest gradient upwards, in a logarithm. The horizon, where the curve falls
    below 1 %, is marked: what lies farther back is hardly learnt. A straight line loses the same share at each step.

    Args:
        profile: one of those that :func:`gradguard.probe.through_time` gives.
        ax: to draw on; those of an earlier call, to compare; None for those of a new figure, ``.figure`` of what comes
            back, that pyplot knows nothing of.
        label: in the legend; the layer's name by default.

    Returns:
        The axes.

    Raises:
        TypeError: no profile, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> from gradguard.probe import through_time
    >>> batch = torch.randn(50, 3, 4)
    >>> (profile,) = through_time(torch.nn.LSTM(4, 8), batch, lambda lstm, x: lstm(x)[0][-1].square().mean())
    >>> plot_profile(profile).get_xlabel()
    'lag, in steps back from the end'
    """
    if not isinstance(profile, Profile):
        raise TypeError(
            f"plot_profile needs one Profile, got {type(profile).__name__}. Call it for each, with the same ax."
        )
    ax = axes("plot_profile", ax)
    drawn = [line for line in ax.lines if line.get_gid() == "memory"]
    colour = COLOURS[len(drawn) % len(COLOURS)]
    lags, shares = range(len(profile.memory)), shares_of(profile.memory)
    if not drawn:
        ax.axhline(LEFT, color="0.5", linewidth=1, linestyle=":", label="1 % of the largest")
    name = f"{profile.layer if label is None else label}: {left(profile)}"
    ax.plot(lags, shares.numpy(), color=colour, linewidth=2, label=name, gid="memory")
    if (fitted := line_of(profile)) is not None:
        words = f"fitted: {math.exp(profile.decay.rate):.3g}-fold each step (r² {profile.decay.fit:.2f})"
        ax.plot(lags, fitted.numpy(), "--", color=colour, linewidth=1, label=words, gid="fitted")
    if math.isfinite(profile.horizon):
        ax.plot(profile.horizon, LEFT, "o", color=colour, markersize=7, markeredgecolor="white", gid="horizon")
    _dress(ax)
    return ax


def line_of(profile: Profile) -> Tensor | None:
    """Give the line that was fitted, as shares at each lag, float64 [L]; None where there is none, or an overflow.

    A line of least squares goes through the mean of its points.
    """
    rate, shares, weights = profile.decay.rate, shares_of(profile.memory), profile.sequences.double()
    if math.isnan(rate) or profile.memory.isinf().any():
        return None
    used = shares.isfinite().cumprod(0).bool() & (shares > FLOOR) & (weights > 0)
    lags, weights = torch.arange(len(shares), device="cpu").double(), weights * used / weights[used].sum()
    height = (weights * shares.where(used, 1.0).log()).sum() - rate * (weights * lags).sum()
    return (height + rate * lags).exp()


def _dress(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    lines: list[Any] = list(ax.lines)
    ax.set_yscale("log")
    lowest = min((float(y) for line in lines for y in line.get_ydata() if y > 0), default=LEFT)
    ax.set_ylim(max(LEAST, min(lowest / 2, LEFT / 3)), 2)
    last = max(len(line.get_xdata()) for line in lines if line.get_gid() == "memory") - 1
    ax.set_xlim(-0.02 * last, 1.02 * last)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    ax.set_xlabel("lag, in steps back from the end")
    ax.set_ylabel("share of the largest gradient")
    ax.set_title("Gradient left, going back in time")
    many = sum(len(line.get_xdata()) for line in lines) > _MANY
    legend = ax.legend(loc="upper right" if many else "best", fontsize="small")
    for text in legend.get_texts():  # a layer's name may hold what matplotlib takes for a formula
        text.set_parse_math(False)
