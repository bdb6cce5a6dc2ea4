"""Gradient norms and update ratios of all layers over a run, as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch

from gradguard.detect import Layout
from gradguard.record import Points
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.heat_map import edges
from gradguard.report.layers import LayerTable, grad_norms_by_layer, update_ratios_by_layer
from gradguard.report.over_steps import limit_to, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ByLayer: TypeAlias = Callable[[Mapping[str, Points], Layout, str], LayerTable]

LABELS = 25  # most names of layers at the side
_LONG = 32  # letters of a name that are shown
_TINY, _HUGE = 1e-300, 1e300  # in the place of 0 and of Inf, which a logarithm has no place for
_ZERO = "black"


def plot_layers(
    history: Mapping[str, Points], layout: Layout, *, prefix: str = "", ax: Axes | None = None, colorbar: bool = True
) -> Axes:
    """Draw the gradient norm of each layer: the first layer at the top, the training step to the right.

    Bright is a large norm, on a logarithmic scale from the smallest to the largest of the run. Black is exactly 0, red
    is infinite, grey is where nothing is known, such as NaN. A gradient that vanishes darkens from the bottom up.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``.
        layout: whose parameters these are, such as ``read(folder).layouts["optimizer"]``.
        prefix: what the optimizer's series begin with, such as ``generator/``; nothing where there is one optimizer.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.
        colorbar: whether to draw one, at the side of ``ax``.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no gradient norm of a parameter of this layout.
        TypeError: no history, no layout, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> from gradguard.detect import Role
    >>> norm = torch.tensor([3.0, 0.3])
    >>> history = {"grad_norm/fc.weight": Points(torch.tensor([1, 2]), norm, norm, norm)}
    >>> ax = plot_layers(history, Layout("optimizer", ("fc.weight",), ("fc",), (8,), (Role.WEIGHT,)))
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['fc']
    """
    table = known("plot_layers", grad_norms_by_layer, history, layout, prefix)
    return _plotted("plot_layers", table, "gradient norm", prefix, "viridis", ax, colorbar)


def plot_layer_ratios(
    history: Mapping[str, Points], layout: Layout, *, prefix: str = "", ax: Axes | None = None, colorbar: bool = True
) -> Axes:
    """Draw the norm of each layer's update over that of its weights: as :func:`plot_layers`, at the sampled steps.

    Args:
        history: as of :func:`plot_layers`.
        layout: the same.
        prefix: the same.
        ax: the same.
        colorbar: the same.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no update of a parameter of this layout.
        TypeError: no history, no layout, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.
    """
    table = known("plot_layer_ratios", update_ratios_by_layer, history, layout, prefix)
    return _plotted("plot_layer_ratios", table, "update / weight", prefix, "cividis", ax, colorbar)


def known(who: str, by_layer: ByLayer, history: Mapping[str, Points], layout: Layout, prefix: str) -> LayerTable:
    """Give a table of layers that has something in it.

    Args:
        who: is drawing, as the user called it.
        by_layer: makes the table.
        history: as the user gave it.
        layout: as the user gave it.
        prefix: as the user gave it.

    Raises:
        ValueError: nothing is in it.
        TypeError: no history or no layout.
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"{who} needs a history, such as guard.history or gradguard.record.read(folder).history, got "
            f"{type(history).__name__}."
        )
    if not isinstance(layout, Layout):
        raise TypeError(
            f"{who} needs the layout of one optimizer, such as gradguard.record.read(folder).layouts['optimizer'], got "
            f"{type(layout).__name__}."
        )
    table = by_layer(history, layout, prefix)
    if not table.values.numel() or table.values.isnan().all():
        got = f"none under prefix={prefix!r}" if len(history) else "an empty one"
        raise ValueError(
            f"{who} needs a history with series of the parameters of {layout.optimizer!r}, got {got}. Pass that of a "
            f"guard that has seen a step, and with several optimizers the prefix {layout.optimizer + '/'!r}."
        )
    return table


def name_layers(ax: Axes, layers: Sequence[str]) -> None:
    """Write the names of layers at the left, the first one at the top; of hundreds, evenly spaced ones."""
    shown = range(0, len(layers), -(-len(layers) // LABELS))
    names = [short(layers[row]) for row in shown]
    # A name may hold what matplotlib takes for a formula.
    ax.set_yticks(list(shown), names, parse_math=False, fontsize="small" if len(shown) < 15 else "x-small")
    ax.set_ylim(len(layers) - 0.5, -0.5)


def short(layer: str) -> str:
    """Give the name of a layer, the end of it where it is long.

    >>> short(""), short("encoder." * 9 + "fc")
    ('(root)', '…oder.encoder.encoder.encoder.fc')
    """
    name = " ".join(layer.split()) or "(root)"
    return name if len(name) <= _LONG else f"…{name[1 - _LONG :]}"


def _plotted(
    who: str, table: LayerTable, what: str, prefix: str, colours: str, ax: Axes | None, colorbar: bool
) -> Axes:
    ax = axes(who, ax)
    from matplotlib import colormaps
    from matplotlib.colors import LogNorm

    there = table.values[table.values.isfinite() & (table.values > 0)]
    least, most = (float(there.min()), float(there.max())) if len(there) else (0.1, 1.0)
    middle, wide = (least * most) ** 0.5, most > least * 1.001
    norm = LogNorm(least, most) if wide else LogNorm(middle / 2, middle * 2)
    shown = torch.where(table.values == 0, _TINY, table.values).clamp(max=_HUGE).T.numpy()
    rows = [row - 0.5 for row in range(len(table.layers) + 1)]
    cmap = colormaps[colours].with_extremes(under=_ZERO, over=COLOURS[1])
    mesh = ax.pcolormesh(edges(table.steps), rows, shown, norm=norm, cmap=cmap, rasterized=True)
    ax.set_facecolor("0.85")
    limit_to(ax, table.steps)
    across = edges(table.steps)
    ax.set_xlim(across[0], across[-1])
    name_layers(ax, table.layers)
    text = f"{what} by layer"
    ax.set_title(titled(prefix, text) if prefix else text.capitalize(), parse_math=False)
    if colorbar:
        zero, infinite = bool((table.values == 0).any()), bool(table.values.isinf().any())
        extend = {(True, True): "both", (True, False): "min", (False, True): "max"}.get((zero, infinite), "neither")
        bar = ax.figure.colorbar(mesh, ax=ax, extend=extend)
        also = [words for is_there, words in ((zero, "black: 0"), (infinite, "red: Inf")) if is_there]
        bar.set_label(f"{what} ({', '.join(also)})" if also else what)
    return ax
