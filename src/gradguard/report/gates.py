"""How open the gates of a layer are, as histograms, one above the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from gradguard.detect import GateStatistics
from gradguard.probe.gates import CANDIDATES, SHUT_SIGMOID
from gradguard.report.canvas import COLOURS, axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TALL = 0.8  # of a row, its tallest bar


def plot_gates(gates: Sequence[GateStatistics], *, ax: Axes | None = None) -> Axes:
    """Draw the values of the gates of one layer: a row for each, from shut on the left to open on the right.

    Each row is a histogram, as high as its tallest bar; a black tick is the mean. What is saturated, in the shaded
    strips, is said in per cent at its end of the row: there nothing is learnt. A gate that keeps the state may well be
    open; one that is shut everywhere, or open and never anything else, does nothing.

    Args:
        gates: ``profile.opened``, or what :func:`gradguard.probe.gates` gives for a layer.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.

    Returns:
        The axes.

    Raises:
        ValueError: no gate, as in a plain network with ReLU.
        TypeError: something that is no gate, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> from gradguard.probe import gates
    >>> lstm = torch.nn.LSTM(4, 8)
    >>> opened = gates(lstm, torch.randn(50, 3, 4))["l0"]
    >>> [text.get_text().split()[0] for text in plot_gates(opened).get_yticklabels()]
    ['i', 'f', 'g', 'o']
    """
    if isinstance(gates, Mapping) or not all(isinstance(gate, GateStatistics) for gate in gates):
        raise TypeError("plot_gates needs the gates of one layer, such as profile.opened or gates(...)['l0'].")
    if not gates:
        raise ValueError("plot_gates needs a gate or more, got none: a layer with ReLU has none.")
    ax = axes("plot_gates", ax)
    for row, gate in enumerate(reversed(gates)):
        count = len(gate.histogram)
        lefts = torch.arange(count) / count
        ax.bar(
            lefts,
            _TALL * gate.histogram / gate.histogram.max(),
            1 / count,
            bottom=row,
            align="edge",
            color=COLOURS[0],
            edgecolor="white",
            linewidth=0.5,
        )
        mean = float(gate.mean.mean())
        mean = (mean + 1) / 2 if gate.gate in CANDIDATES else mean
        ax.plot([mean, mean], [row, row + _TALL], color="black", linewidth=2)
        ax.text(
            1.02,
            row + _TALL / 2,
            f"{float(gate.open.mean()):.1%}\nopen",
            transform=ax.get_yaxis_transform(),
            verticalalignment="center",
            fontsize="small",
        )
    for strip in (0.0, SHUT_SIGMOID), (1 - SHUT_SIGMOID, 1.0):
        ax.axvspan(*strip, color=COLOURS[1], alpha=0.3, linewidth=0, zorder=0)
    ends = [f"{gate.gate}   {float(gate.shut.mean()):.1%}\nshut" for gate in reversed(gates)]
    ax.set_yticks([row + _TALL / 2 for row in range(len(gates))], ends)
    ax.tick_params("y", length=0)
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.1, len(gates))
    tanh = ", ".join(gate.gate for gate in gates if gate.gate in CANDIDATES)
    sigmoid = [gate for gate in gates if gate.gate not in CANDIDATES]
    ax.set_xlabel("value" + (f" ({tanh}: from -1 to 1)" if sigmoid and tanh else ""))
    if not sigmoid:
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["-1", "-0.5", "0", "0.5", "1"])
    ax.set_title("How open the gates are")
    return ax
