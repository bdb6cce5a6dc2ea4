"""What is left of the gradient over the lag, in one step, as a curve.

Shape legend: L = lags.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradguard.detect import Profile
from gradguard.functional.decay import LEFT
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.memory import shares_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST = 1e-8  # share below which no curve is followed
_FLOOR = 1e-30  # what is smaller is in no line, as in gradguard.functional.decay
_MANY = 5000  # points beyond which a free place for the legend is not looked for: that takes long


def plot_profile(profile: Profile, *, ax: Axes | None = None, label: str | None = None) -> Axes:
    """Draw what is left of the gradient over the lag, and the line that was fitted to its logarithm.

    The lag to the right, the share of the largest gradient upwards, in a logarithm; the horizon is marked where the
    curve crosses 1 %. A straight fall is what a network forgets by: the longer its way down, the farther it learns.

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
            f"plot_profile needs one Profile, got {type(profile).__name__}. Call it for each of several, with the same ax."
        )
    ax = axes("plot_profile", ax)
    drawn = [line for line in ax.lines if line.get_gid() == "memory"]
    colour = COLOURS[len(drawn) % len(COLOURS)]
    lags, shares = torch.arange(len(profile.memory)), shares_of(profile.memory)
    if not drawn:
        ax.axhline(LEFT, color="0.5", linewidth=1, linestyle=":", label="1 % of the largest")
    name = f"{profile.layer if label is None else label}: {_in_words(profile)}"
    ax.plot(lags, shares, color=colour, linewidth=2, label=name, gid="memory")
    if (fitted := line_of(profile)) is not None:
        rate, fit = math.exp(profile.decay.rate), profile.decay.fit
        ax.plot(lags, fitted, "--", color=colour, linewidth=1, label=f"fitted: x {rate:.3g} each step (r² {fit:.2f})")
    if math.isfinite(profile.horizon):
        ax.plot(profile.horizon, LEFT, "o", color=colour, markersize=7, markeredgecolor="white", gid="horizon")
    _dress(ax)
    return ax


def line_of(profile: Profile) -> Tensor | None:
    """Give the fitted line as shares at each lag, float64 [L]; None where there is none.

    A line of least squares goes through the mean of its points.
    """
    shares, weights = shares_of(profile.memory), profile.sequences.double()
    used = shares.isfinite() & (shares > _FLOOR) & (weights > 0)
    if math.isnan(profile.decay.rate):
        return None
    lags, weights = torch.arange(len(shares)).double(), weights * used / weights[used].sum()
    middle = (weights * shares.where(used, 1.0).log()).sum()
    return (middle + profile.decay.rate * (lags - (weights * lags).sum())).exp()


def _in_words(profile: Profile) -> str:
    if math.isnan(profile.horizon):
        return "no gradient"
    if math.isinf(profile.horizon):
        return f"more than 1 % left over all {profile.length:.0f} steps"
    return f"1 % left after {profile.horizon:.3g} of {profile.length:.0f} steps"


def _dress(ax: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_yscale("log")
    lowest = min((float(y) for line in ax.lines for y in line.get_ydata() if y > 0), default=LEFT)
    ax.set_ylim(max(LEAST, min(lowest / 2, LEFT / 3)), 2)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    ax.set_xlabel("lag, in steps back from the end")
    ax.set_ylabel("share of the largest gradient")
    ax.set_title("Gradient left, going back in time")
    many = sum(len(line.get_xdata()) for line in ax.lines) > _MANY
    ax.legend(loc="upper right" if many else "best", fontsize="small")
