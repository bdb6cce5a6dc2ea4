"""What the figures over training steps share: a series as a line with its band, steps as marks, findings as spans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from gradguard.detect import Finding, Severity
from gradguard.record import Points
from gradguard.report.canvas import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SHADES: Final[Mapping[Severity, str]] = {
    Severity.INFO: COLOURS[5],
    Severity.WARNING: COLOURS[4],
    Severity.CRITICAL: COLOURS[1],
}
_FEW = 30  # points up to which each is a dot
_MANY = 5000  # points beyond which a free place for the legend is not looked for: that takes long
_LANES, _HIGH = 6, 0.065  # names of findings above each other, and how high one is, of the axes


def needed(who: str, history: Mapping[str, Points], prefix: str, key: str) -> Points:
    """Give a series that has something in it.

    Args:
        who: is drawing, as the user called it.
        history: as the user gave it.
        prefix: what the optimizer's series begin with.
        key: of the series, such as ``loss``.

    Raises:
        TypeError: no history.
        ValueError: no such series, or nothing in it.
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"{who} needs a history, such as guard.history or gradguard.record.read(folder).history, got "
            f"{type(history).__name__}."
        )
    points = history.get(f"{prefix}{key}")
    if points is None or not len(points.steps):
        raise ValueError(f"{who} needs a history with the series {prefix}{key}, {_instead(history, key)}")
    return points


def _instead(history: Mapping[str, Points], key: str) -> str:
    if not len(history):
        return "got an empty one. Pass that of a guard that has seen a step, after guard.flush()."
    there = [name[: -len(key)] for name in history if name.endswith(f"/{key}")]
    if there:
        return f"got one of several optimizers. Pass prefix={' or '.join(map(repr, there))}."
    if key == "loss":
        return "got one without a loss. Call guard.record_loss(loss) at each step."
    return "got one without it."


def draw_series(ax: Axes, points: Points, *, name: str, colour: str, **style: Any) -> Line2D:
    """Draw the last value of each point as a line, and from the least to the largest as a band where they differ.

    What is not finite is a gap. The line's and the band's ``gid`` are ``name`` and ``name``, space, ``band``.
    """
    from matplotlib.colors import to_rgba

    steps = points.steps.numpy()
    last, low, high = (_finite(values).numpy() for values in points[1:])
    if (low < last).any() or (high > last).any():
        # Without its edge, a spike within one point of a thousand would be thinner than a pixel.
        shades: dict[str, Any] = {"facecolor": to_rgba(colour, 0.25), "edgecolor": to_rgba(colour, 0.5)}
        band = ax.fill_between(steps, low, high, linewidth=0.7, **shades)
        band.set_gid(f"{name} band")
    plain: dict[str, Any] = {"linewidth": 1.5, "marker": "o" if len(steps) <= _FEW else "", "markersize": 3}
    (line,) = ax.plot(steps, last, color=colour, label=name, gid=name, **plain | style)
    return line


def _finite(values: Tensor) -> Tensor:
    return torch.where(values.isfinite(), values.double(), torch.nan)


def not_finite(points: Points) -> Tensor:
    """Give the steps whose last value is NaN or infinite, or that stand for a step where it was infinite."""
    return points.steps[~points.last.isfinite() | points.low.isinf() | points.high.isinf()]


def mark_steps(ax: Axes, steps: Tensor, *, name: str, height: float, marker: str, colour: str) -> None:
    """Draw marks at steps, in a row at this height of the axes; nothing where there are none."""
    if len(steps):
        where = ax.get_xaxis_transform()
        style: dict[str, Any] = {"linestyle": "", "markersize": 5, "label": name, "gid": name, "zorder": 4}
        ax.plot(steps.numpy(), [height] * len(steps), marker=marker, color=colour, transform=where, **style)


def shade_findings(ax: Axes, findings: Sequence[Finding], prefix: str) -> None:
    """Shade the steps of each finding in the colour of its severity, and name it; those of other optimizers are not.

    Raises:
        TypeError: something else than findings.
    """
    if not isinstance(findings, Sequence) or not all(isinstance(one, Finding) for one in findings):
        raise TypeError("Findings to be shaded need to be a list of them, such as guard.diagnose() or run.findings.")
    left, right = ax.get_xlim()
    own = [one for one in findings if not prefix or one.optimizer == prefix[:-1]]
    make_room(ax, top=0.04 + _HIGH * min(len(own), _LANES) if own else 0.0)
    for place, one in enumerate(own):
        start, stop = one.first_step - 0.5, one.last_step + 0.5
        colour, gid = SHADES[one.severity], f"finding {one.symptom.value}"
        ax.axvspan(start, stop, color=colour, alpha=0.13, linewidth=0, zorder=0, gid=gid)
        for edge in start, stop:
            ax.axvline(edge, color=colour, linewidth=0.8, zorder=0.5)
        late = start > left + 0.6 * (right - left)
        ax.annotate(
            f"{one.symptom.value} ({one.severity.value})",
            (min(stop, right) if late else max(start, left), 0.945 - _HIGH * (place % _LANES)),
            xycoords=("data", "axes fraction"),
            xytext=(-3 if late else 3, 0),
            textcoords="offset points",
            horizontalalignment="right" if late else "left",
            verticalalignment="top",
            fontsize="x-small",
            bbox={"boxstyle": "square,pad=0.15", "facecolor": "white", "alpha": 0.7, "linewidth": 0},
        )
    ax.set_xlim(left, right)


def make_room(ax: Axes, *, bottom: float = 0.0, top: float = 0.0) -> None:
    """Leave these shares of the axes free of lines, for marks and words."""
    low, high = ax.get_ylim()
    below, above = (share / (1 - bottom - top) for share in (bottom, top))
    if ax.get_yscale() == "log":
        ax.set_ylim(low / (high / low) ** below, high * (high / low) ** above)
    else:
        ax.set_ylim(low - (high - low) * below, high + (high - low) * above)


def limit_to(ax: Axes, steps: Tensor) -> None:
    """Let the axes go from the first step to the last."""
    from matplotlib.ticker import MaxNLocator

    first, last = float(steps[0]), float(steps[-1])
    room = max(0.5, 0.01 * (last - first))
    ax.set_xlim(first - room, last + room)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10], integer=True))
    ax.set_xlabel("training step")


def add_legend(ax: Axes, *others: Axes) -> None:
    """Say what the lines are: those of other axes at the same place, too."""
    handles, labels = ax.get_legend_handles_labels()
    for other in others:
        more = other.get_legend_handles_labels()
        handles, labels = handles + more[0], labels + more[1]
    lines: list[Any] = list(ax.lines)
    # Below, others' lines would be drawn over the legend, and it would be laid over the lines of ``ax``.
    for other in others:
        ax.set_zorder(other.get_zorder() + 1)
        ax.patch.set_visible(False)
        other.patch.set_visible(True)
    many = sum(len(line.get_xdata()) for line in lines) > _MANY
    style: dict[str, Any] = {"loc": "lower left" if many else "best", "fontsize": "small", "framealpha": 0.85}
    ax.legend(handles, labels, **style)


def titled(prefix: str, text: str) -> str:
    """Put the optimizer's name before a title, where there are several."""
    return f"{prefix[:-1]}: {text}" if prefix else text
