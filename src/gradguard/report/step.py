"""All layers at one step of a run, as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor

from gradguard.arguments import whole_number
from gradguard.detect import Layout, Role
from gradguard.record import Points
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.layer_map import ByLayer, known, name_layers
from gradguard.report.layers import grad_norms_by_layer, update_ratios_by_layer
from gradguard.report.over_steps import titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Role, how its parameters are called, their mark and colour.
_ROLES: Final = (
    (Role.WEIGHT, "weights", "o", COLOURS[0]),
    (Role.BIAS, "biases", "s", COLOURS[1]),
    (Role.OTHER, "others: norms, embeddings", "^", COLOURS[2]),
)
_MANY = 60  # layers from which on the marks are small


def plot_step(
    history: Mapping[str, Points], layout: Layout, step: int, *, prefix: str = "", ax: Axes | None = None
) -> Axes:
    """Draw the gradient norm of each layer at one training step: the first layer at the top, on a logarithmic scale.

    What a layer's weights, its biases and its other parameters have is told apart: a bias has a norm of another size
    than the weight beside it. A norm of exactly 0 is a hollow mark at the left edge, an infinite one at the right.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``.
        layout: whose parameters these are, such as ``read(folder).layouts["optimizer"]``.
        step: optimizer step, counted from 1; the nearest one that was kept is drawn, and named in the title.
        prefix: what the optimizer's series begin with, such as ``generator/``; nothing where there is one optimizer.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no gradient norm of a parameter of this layout; the step lies outside of it.
        TypeError: no history, no layout, no whole number, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> norm = torch.tensor([3.0, 0.3])
    >>> history = {"grad_norm/fc.weight": Points(torch.tensor([1, 2]), norm, norm, norm)}
    >>> layout = Layout("optimizer", ("fc.weight",), ("fc",), (8,), (Role.WEIGHT,))
    >>> plot_step(history, layout, 2).get_title()
    'Gradient norm by layer at step 2'
    """
    return _plotted("plot_step", grad_norms_by_layer, "gradient norm", history, layout, step, prefix, ax)


def plot_step_ratios(
    history: Mapping[str, Points], layout: Layout, step: int, *, prefix: str = "", ax: Axes | None = None
) -> Axes:
    """Draw the norm of each layer's update over that of its weights at one step: as :func:`plot_step`.

    Args:
        history: as of :func:`plot_step`.
        layout: the same.
        step: the same; updates are measured at sampled steps, of which the nearest one is drawn.
        prefix: the same.
        ax: the same.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no update of a parameter of this layout; the step lies outside of it.
        TypeError: no history, no layout, no whole number, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.
    """
    return _plotted("plot_step_ratios", update_ratios_by_layer, "update / weight", history, layout, step, prefix, ax)


def _plotted(
    who: str,
    by_layer: ByLayer,
    what: str,
    history: Mapping[str, Points],
    layout: Layout,
    step: int,
    prefix: str,
    ax: Axes | None,
) -> Axes:
    whole = known(who, by_layer, history, layout, prefix)
    at = _nearest(who, whole.steps, step)
    ax = axes(who, ax)
    row_of = {layer: row for row, layer in enumerate(whole.layers)}
    size = 5 if len(row_of) < _MANY else 2.5
    for role, name, marker, colour in _ROLES:
        kept = _of_role(layout, role)
        if not kept.names:
            continue
        table = by_layer(history, kept, prefix)
        values = table.values[table.steps == at].flatten()
        rows = torch.tensor([row_of[layer] for layer in table.layers], device="cpu")[: len(values)]
        style: dict[str, Any] = {"linestyle": "", "marker": marker, "color": colour, "markersize": size}
        drawn = values.isfinite() & (values > 0)
        ax.plot(values[drawn].numpy(), rows[drawn].numpy(), label=name, gid=name, **style)
        for there, edge, word in (values == 0, 0.012, "0"), (values.isinf(), 0.988, "Inf"):
            if there.any():
                hollow = {**style, "markerfacecolor": "none", "clip_on": False, "transform": ax.get_yaxis_transform()}
                ax.plot([edge] * int(there.sum()), rows[there].numpy(), gid=f"{name} {word}", **hollow)
    at_edges = any(str(line.get_gid()).endswith((" 0", " Inf")) for line in ax.lines)
    _dress(ax, whole.layers, f"{what} (hollow, at the edges: 0 and Inf)" if at_edges else what)
    text = f"{what} by layer at step {at}"
    ax.set_title(titled(prefix, text) if prefix else text[0].upper() + text[1:], parse_math=False)
    return ax


def _of_role(layout: Layout, role: Role) -> Layout:
    """Give a layout of the parameters of one role alone."""
    of = [i for i, one in enumerate(layout.roles) if one is role]
    names, layers = (tuple(field[i] for i in of) for field in (layout.names, layout.layers))
    sizes = tuple(layout.sizes[i] for i in of)
    return replace(layout, names=names, layers=layers, sizes=sizes, roles=(role,) * len(of))


def _nearest(who: str, steps: Tensor, step: int) -> int:
    step = whole_number(who, "step", step)
    first, last = int(steps[0]), int(steps[-1])
    if not first <= step <= last:
        raise ValueError(f"{who} needs a step of the history, from {first} to {last}, got {step}.")
    return int(steps[(steps - step).abs().argmin()])


def _dress(ax: Axes, layers: tuple[str, ...], what: str) -> None:
    ax.set_xscale("log")
    name_layers(ax, layers)
    ax.grid(axis="x", color="0.9", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_xlabel(what)
    ax.legend(loc="best", fontsize="small", framealpha=0.85)
