"""The loss and the learning rate over a run, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from gradguard.record import Points
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.over_steps import add_legend, draw_series, limit_to, mark_steps, needed, not_finite, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_loss(history: Mapping[str, Points], *, prefix: str = "", ax: Axes | None = None) -> Axes:
    """Draw the loss over the training steps, and on an axis at the right the learning rate where it is known.

    Of a long run a point stands for neighbouring steps: the line is the last of them, the band goes from the smallest
    to the largest. Marks at the top say where the loss was NaN or infinite.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``, of a guard that was told the loss.
        prefix: what the optimizer's series begin with, such as ``generator/``; nothing where there is one optimizer.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.

    Returns:
        The axes of the loss; those of the learning rate lie on the same place of ``.figure``.

    Raises:
        ValueError: the history has no loss in it.
        TypeError: no history, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> import torch
    >>> loss = torch.tensor([2.3, 1.9])
    >>> plot_loss({"loss": Points(torch.tensor([1, 2]), loss, loss, loss)}).get_ylabel()
    'loss'
    """
    loss = needed("plot_loss", history, prefix, "loss")
    ax = axes("plot_loss", ax)
    draw_series(ax, loss, name="loss", colour=COLOURS[0])
    mark_steps(ax, not_finite(loss), name="NaN or infinite", height=0.98, marker="v", colour=COLOURS[6])
    limit_to(ax, loss.steps)
    ax.set_ylabel("loss")
    ax.set_title(titled(prefix, "loss" if prefix else "Loss"), parse_math=False)
    rate = history.get(f"{prefix}learning_rate")
    if rate is not None and len(rate.steps):
        right = ax.twinx()
        draw_series(right, rate, name="learning rate", colour=COLOURS[1], linestyle="--", marker="")
        right.set_ylabel("learning rate")
        right.set_ylim(bottom=0)
        add_legend(ax, right)
    elif len(ax.lines) > 1:
        add_legend(ax)
    return ax
