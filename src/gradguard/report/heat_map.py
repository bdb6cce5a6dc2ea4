"""What is left of the gradient over lag and training step, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from gradguard.functional.decay import LEFT
from gradguard.record import Points
from gradguard.report.canvas import axes
from gradguard.report.memory import memory_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

LEAST = 1e-6  # share at the dark end of the colours
_TINY = 1e-30  # of a share of zero, which a logarithm has no place for
_LINE: Final[dict[str, Any]] = {"color": "white", "linewidth": 1.5, "markersize": 1}  # a dot alone is seen, too
_TICKS = (0, *(digit * 10**power for power in range(7) for digit in (1, 2, 5)))


def plot_memory(
    history: Mapping[str, Points], layer: str | None = None, *, ax: Axes | None = None, colorbar: bool = True
) -> Axes:
    """Draw what is left of the gradient: the lag upwards, the training step to the right, bright where much is left.

    A line marks the lag from which on less than 1 % is left, another one the end of the sequence. Grey is where there
    is nothing to show. A network that can learn what lies far back is bright, or becomes so, up to there.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``, of a guard with ``through_time``.
        layer: such as ``lstm.l0``: see :func:`memory_of`. None where there is one.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.
        colorbar: whether to draw one, at the side of ``ax``.

    Returns:
        The axes.

    Raises:
        ValueError: nothing was looked at through time; no such layer, or more than one.
        TypeError: no history, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> size = {0: 1.0, 1: 0.1, 2: 0.01}
    >>> step = torch.tensor([25])
    >>> history = {f"memory/l0/{lag}": Points(step, *[torch.tensor([size[lag]])] * 3) for lag in size}
    >>> plot_memory(history).get_title()
    'l0: gradient left, going back in time'
    """
    memory = memory_of(history, layer)
    ax = axes("plot_memory", ax)
    from matplotlib.colors import LogNorm

    across, up = edges(memory.steps), edges(memory.lags)
    up[-1] = max(up[-1], float(memory.lengths.nan_to_num(0.0).max()))
    shares = memory.shares.clamp(min=_TINY).T.numpy()  # of NaN, clamp makes NaN
    mesh = ax.pcolormesh(across, up, shares, norm=LogNorm(LEAST, 1.0), cmap="viridis", rasterized=True)
    _dress(ax, across, up)
    for values, style, label in (memory.horizons, "-", "1 % left"), (memory.lengths, "--", "end of the sequence"):
        if not values.isnan().all():
            outline(*ax.plot(memory.steps.numpy(), values.numpy(), style, marker="o", label=label, **_LINE))
            ax.legend(loc="lower right", fontsize="small", facecolor="0.3", labelcolor="white", framealpha=0.8)
    ax.set_title(f"{memory.layer}: gradient left, going back in time", parse_math=False)
    if colorbar:
        bar = ax.figure.colorbar(mesh, ax=ax, extend="min")
        bar.set_label("share of the step's largest gradient")
        outline(bar.ax.axhline(LEFT, **_LINE))
    return ax


def edges(centres: Tensor) -> list[float]:
    """Give the edges of cells: half-way between their centres, and at the ends as far out as the next one is in.

    >>> edges(torch.tensor([1, 2, 4]))
    [0.5, 1.5, 3.0, 5.0]
    """
    found = centres.double()
    if len(found) == 1:
        return [float(found) - 0.5, float(found) + 0.5]
    halves = found.diff() / 2
    return torch.cat([found[:1] - halves[0], found[:-1] + halves, found[-1:] + halves[-1]]).tolist()


def _dress(ax: Axes, across: Sequence[float], up: Sequence[float]) -> None:
    """Lay out the axes: lags as in a logarithm, but from 0 on."""
    from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

    ax.set_facecolor("0.85")
    ax.set_yscale("symlog", linthresh=1, linscale=0.3)
    ax.set_ylim(up[0], up[-1] * 1.06)
    ax.yaxis.set_major_locator(FixedLocator([tick for tick in _TICKS if tick <= up[-1]]))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    ax.set_xlim(across[0], across[-1])
    at_steps = MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True)
    ax.xaxis.set_major_locator(at_steps if len(across) > 2 else FixedLocator([sum(across) / 2]))
    ax.set_xlabel("training step")
    ax.set_ylabel("lag, in steps back from the end")


def outline(line: Line2D) -> None:
    """Let a line be seen on every colour."""
    from matplotlib.patheffects import Normal, Stroke

    line.set_path_effects([Stroke(linewidth=3, foreground="black"), Normal()])
