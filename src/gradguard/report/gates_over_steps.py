"""How open a gate is over a run: its histogram at each sampled step, as a table and as a picture.

Shape legend: S = sampled steps, K = bins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from gradguard.probe.gates import CANDIDATES, SHUT_SIGMOID
from gradguard.record import Points
from gradguard.report.canvas import axes
from gradguard.report.heat_map import edges, outline
from gradguard.report.over_steps import limit_to

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SERIES = re.compile(r"(?P<layer>(?:.+/)?gates/.+)/(?P<gate>[^/]+)/bin_0", re.DOTALL)


class GateHistory(NamedTuple):
    """One gate over a run. All tensors are on the CPU.

    Attributes:
        layer: its name; behind that of its optimizer, where several were guarded.
        gate: its letter, as in the equations of the module's docstring.
        steps: int64, [S], rising; the optimizer steps that were looked at.
        shares: float64, [S, K], share of all values in equal bins, from 0 to 1, or from -1 to 1 of a tanh.
        means: float64, [S].
    """

    layer: str
    gate: str
    steps: Tensor
    shares: Tensor
    means: Tensor

    @property
    def least(self) -> float:
        """The smallest value that it can have: -1 of a tanh."""
        return -1.0 if self.gate in CANDIDATES else 0.0


def gate_over_steps(history: Mapping[str, Points], gate: str, layer: str | None = None) -> GateHistory:
    """Give the histogram of a gate at each sampled step.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``, of a guard with ``through_time``.
        gate: its letter, such as ``f``.
        layer: such as ``lstm.l0``; with several optimizers, the optimizer's name and ``/`` may stand before it, and do
            where two have a layer of that name. None where one layer has such a gate.

    Returns:
        The table. Where the run was long, a row stands for neighbouring steps, with the values of the last of them.

    Raises:
        ValueError: no gate was looked at; no such gate or layer, or more than one.
        TypeError: no history.

    Host sync: none. Mutates: nothing.
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"gate_over_steps needs a history, such as guard.history or gradguard.record.read(folder).history, got "
            f"{type(history).__name__}."
        )
    group = _chosen(history, gate, layer)
    bins: list[Points] = []
    while (points := history.get(f"{group}/bin_{len(bins)}")) is not None:
        bins.append(points)
    steps = bins[0].steps  # bins and mean are columns of one table
    shares = torch.stack([points.last.double() for points in bins], 1)
    return GateHistory(_spoken(group.rpartition("/")[0]), gate, steps, shares, history[f"{group}/mean"].last.double())


def gates_in(history: Mapping[str, Points]) -> list[tuple[str, str]]:
    """Give the layers and gates that were looked at, as :func:`gate_over_steps` takes them."""
    there = filter(None, map(_SERIES.fullmatch, history))
    return [(_spoken(match["layer"]), match["gate"]) for match in there]


def plot_gates_over_steps(
    history: Mapping[str, Points],
    gate: str,
    layer: str | None = None,
    *,
    ax: Axes | None = None,
    colorbar: bool = True,
) -> Axes:
    """Draw how open a gate is: its value upwards, the training step to the right, bright where many values lie.

    The line is the mean. Beyond the dashed lines the gate is saturated and hardly learns. A gate whose values all move
    there, and stay, does nothing any more.

    Args:
        history: as of :func:`gate_over_steps`.
        gate: its letter, such as ``f``.
        layer: such as ``lstm.l0``; None where one layer has such a gate.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.
        colorbar: whether to draw one, at the side of ``ax``.

    Returns:
        The axes.

    Raises:
        ValueError: no gate was looked at; no such gate or layer, or more than one.
        TypeError: no history, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> step, half = torch.tensor([25]), torch.tensor([0.5])
    >>> history = {f"gates/l0/f/{name}": Points(step, half, half, half) for name in ("mean", "bin_0", "bin_1")}
    >>> plot_gates_over_steps(history, "f").get_title()
    'l0: how open gate f is'
    """
    found = gate_over_steps(history, gate, layer)
    ax = axes("plot_gates_over_steps", ax)
    across, bins, span = edges(found.steps), found.shares.shape[1], 1 - found.least
    up = [found.least + span * k / bins for k in range(bins + 1)]
    mesh = ax.pcolormesh(across, up, found.shares.T.numpy(), vmin=0.0, cmap="cividis", rasterized=True)
    ax.set_facecolor("0.85")
    (line,) = ax.plot(found.steps.numpy(), found.means.numpy(), color="white", marker="o", markersize=2, label="mean")
    line.set_gid("mean")
    outline(line)
    for limit in (found.least + span * SHUT_SIGMOID, 1 - span * SHUT_SIGMOID):
        ax.axhline(limit, color="white", linewidth=0.8, linestyle="--")
    limit_to(ax, found.steps)
    ax.set_xlim(across[0], across[-1])
    ax.set_ylim(found.least, 1)
    ax.set_ylabel("value; beyond the dashed lines: saturated")
    ax.set_title(f"{found.layer}: how open gate {found.gate} is", parse_math=False)
    ax.legend(loc="best", fontsize="small", facecolor="0.3", labelcolor="white", framealpha=0.8)
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax).set_label("share of the values")
    return ax


def _spoken(group: str) -> str:
    """Name a layer: ``d/gates/l0`` is ``d/l0``."""
    prefix, _, layer = group.rpartition("gates/")
    return prefix + layer


def _chosen(history: Mapping[str, Points], gate: str, layer: str | None) -> str:
    """Give what the series of a gate begin with."""
    there = [match for match in map(_SERIES.fullmatch, history) if match is not None]
    if not there:
        raise ValueError(
            "How open the gates are needs a history of a guard that looks into recurrent layers, and this one has no "
            "series gates/... in it. Pass Guard(..., through_time=True), or GradGuard(through_time=True)."
        )
    named = [(_spoken(match["layer"]), match) for match in there if match["gate"] == gate]
    fits = [match for name, match in named if layer is None or name == layer]
    fits = fits or [match for _, match in named if match["layer"].endswith(f"gates/{layer}")]
    if len(fits) != 1:
        known = ", ".join(f"{match['gate']} of {_spoken(match['layer'])}" for match in there)
        got = f"{gate!r} of {'no layer' if layer is None else repr(layer)}"
        raise ValueError(f"How open the gates are needs a gate and a layer, of {known}; got {got}.")
    return f"{fits[0]['layer']}/{gate}"
