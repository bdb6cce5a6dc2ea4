"""The gradient norm over a run, before and after clipping, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from gradguard.detect import Finding
from gradguard.record import Points
from gradguard.report.canvas import COLOURS, axes
from gradguard.report.over_steps import (
    add_legend,
    draw_series,
    limit_to,
    make_room,
    mark_steps,
    needed,
    not_finite,
    shade_findings,
    titled,
)
from gradguard.report.series import was_changed

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_grad_norm(
    history: Mapping[str, Points],
    *,
    prefix: str = "",
    findings: Sequence[Finding] = (),
    log: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the total gradient norm over the training steps: before clipping, after it, and the threshold.

    Of a long run a point stands for neighbouring steps: the line is the last of them, the band goes from the smallest
    to the largest. Marks at the bottom say at which steps a clipper changed something, and which were skipped; marks at
    the top, where the norm was NaN or infinite. Shaded is where a finding held.

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``.
        prefix: what the optimizer's series begin with, such as ``generator/``; nothing where there is one optimizer.
        findings: such as ``guard.diagnose()`` or ``read(folder).findings``; of those, the optimizer's own are shaded.
        log: whether the norm has a logarithmic scale, on which a norm of 0 has no place; not where all of them are 0.
        ax: to draw on; None for those of a new figure, ``.figure`` of what comes back, that pyplot knows nothing of.

    Returns:
        The axes.

    Raises:
        ValueError: the history has no gradient norm in it.
        TypeError: no history, no findings, or no axes.
        MissingPackageError: matplotlib is not installed.

    Host sync: none. Mutates: nothing but ``ax``.

    >>> import torch
    >>> total = torch.tensor([3.0, 0.3])
    >>> history = {"grad_norm/total": Points(torch.tensor([1, 2]), total, total, total)}
    >>> [line.get_label() for line in plot_grad_norm(history).lines]
    ['before clipping']
    """
    total = needed("plot_grad_norm", history, prefix, "grad_norm/total")
    ax = axes("plot_grad_norm", ax)
    clipped, threshold, coefficient, skipped = (
        history.get(f"{prefix}{key}") for key in ("grad_norm/clipped", "clip/threshold", "clip/coefficient", "skipped")
    )
    draw_series(ax, total, name="before clipping", colour=COLOURS[0])
    if clipped is not None:
        draw_series(ax, clipped, name="after clipping", colour=COLOURS[2])
    if threshold is not None:
        draw_series(ax, threshold, name="threshold", colour=COLOURS[6], linestyle="--", linewidth=1, marker="")
    if log and (total.last.isfinite() & (total.last > 0)).any():
        ax.set_yscale("log")
    limit_to(ax, total.steps)
    make_room(ax, bottom=0.07)
    if coefficient is not None:
        mark_steps(
            ax, coefficient.steps[was_changed(coefficient)], name="clipped", height=0.02, marker="|", colour=COLOURS[1]
        )
    if skipped is not None:
        mark_steps(ax, skipped.steps, name="skipped", height=0.06, marker="x", colour=COLOURS[3])
    mark_steps(ax, not_finite(total), name="NaN or infinite", height=0.98, marker="v", colour=COLOURS[6])
    shade_findings(ax, findings, prefix)
    ax.set_ylabel("total gradient norm")
    ax.set_title(titled(prefix, "gradient norm" if prefix else "Gradient norm"), parse_math=False)
    add_legend(ax)
    return ax
