"""The axes that a figure is drawn on, and its colours: told apart by the colour-blind, too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from gradguard.errors import MissingPackageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito 2008, without the yellow, which is hard to see on white.
COLOURS: Final[Sequence[str]] = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")


def axes(who: str, ax: Axes | None) -> Axes:
    """Give the axes that were passed in, or those of a new figure that pyplot knows nothing of.

    Args:
        who: is drawing, as the user called it.
        ax: as the user gave it.

    Raises:
        MissingPackageError: matplotlib is not installed.
        TypeError: ``ax`` is something else.
    """
    try:
        from matplotlib.axes import Axes
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingPackageError(
            f"{who} needs matplotlib, which can't be imported ({error}): pip install 'gradguard[plot]'."
        ) from error
    if ax is None:
        return Figure(figsize=(6, 4), dpi=150, layout="constrained").add_subplot()
    if not isinstance(ax, Axes):
        raise TypeError(
            f"{who} needs ax to be one Axes of matplotlib, or None for a new figure, got {type(ax).__name__}."
        )
    return ax
