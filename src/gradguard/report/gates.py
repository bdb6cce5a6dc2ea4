"""How open the gates of a layer are, as histograms, one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradguard.detect import GateStatistics
from gradguard.probe.gates import CANDIDATES, SHUT_SIGMOID
from gradguard.report.canvas import COLOURS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TALL = 0.7  # of a row, its tallest bar


def plot_gates(gates: Sequence[GateStatistics], *, ax: Axes | None = None) -> Axes:
    """Draw the values of the gates of one layer: a row for each, from shut on the left to open on the right.

    Each row is a histogram, scaled to its tallest bar; a black line is the mean. The share of the values in the shaded
    strips, where the gate is saturated and hardly learns, is said at either end. A gate that keeps the state may well
    be open; one that is shut everywhere, or open and never anything else, does nothing.

    Args:
        gates: ``profile.gates``, or what :func:`gradguard.probe.gates` gives for a layer.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.

    Returns:
        The axes.

    Raises:
        ValueError: no gate, as in a plain network with ReLU.
        TypeError: something that is no gate, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> import torch
    >>> from gradguard.probe import gates
    >>> lstm = torch.nn.LSTM(4, 8)
    >>> opened = gates(lstm, torch.randn(50, 3, 4))["l0"]
    >>> [label.get_text() for label in plot_gates(opened).get_yticklabels()]  # from below
    ['o', 'g', 'f', 'i']
    """
    if isinstance(gates, Mapping) or not all(isinstance(gate, GateStatistics) for gate in gates):
        raise TypeError("plot_gates needs the gates of one layer, such as profile.gates or gates(...)['l0'].")
    if not gates:
        raise ValueError("plot_gates needs a gate or more, got none: a layer with ReLU has none.")
    ax = axes("plot_gates", ax)
    for row, gate in enumerate(reversed(gates)):
        bins = [k / len(gate.histogram) for k in range(len(gate.histogram) + 1)]
        heights = (row + TALL * gate.histogram / gate.histogram.max()).numpy()
        ax.stairs(heights, bins, baseline=row, fill=True, color=COLOURS[0])
        mean = float(gate.mean.mean())
        mean = (mean + 1) / 2 if gate.gate in CANDIDATES else mean
        ax.plot([mean, mean], [row, row + TALL], color="black", linewidth=1.5)
        ax.axhline(row, color="0.5", linewidth=0.8)
        for x, side, words, share in (0.03, "left", "shut", gate.shut), (0.97, "right", "open", gate.open):
            text = f"{words} {100 * float(share.mean()):.1f} %"
            ax.text(x, row + 0.97, text, horizontalalignment=side, verticalalignment="top", fontsize="small")
    _dress(ax, [gate.gate for gate in reversed(gates)])
    return ax


def _dress(ax: Axes, names: Sequence[str]) -> None:
    for strip in (0.0, SHUT_SIGMOID), (1 - SHUT_SIGMOID, 1.0):
        ax.axvspan(*strip, color=COLOURS[1], alpha=0.3, linewidth=0, zorder=0)
    ax.set_yticks([row + TALL / 2 for row in range(len(names))], names, fontsize="large")
    ax.tick_params("y", length=0)
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.05, len(names))
    tanh = [name for name in names if name in CANDIDATES]
    if len(tanh) == len(names):
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["-1", "-0.5", "0", "0.5", "1"])
    other = f" ({', '.join(tanh)}: from -1 to 1)" if 0 < len(tanh) < len(names) else ""
    ax.set_xlabel(f"value{other}; shaded: saturated; black: mean")
    ax.set_title("How open the gates are")
