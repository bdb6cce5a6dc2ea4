"""The promises of every dashboard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gradguard.functional import Histograms


class AbstractDashboard:
    """One logger of a Trainer, as what its backend can show. Every logger takes numbers, and not every one more.

    What a dashboard can't show it leaves out without a word. What it shows it writes now, or raises: whoever calls it
    decides what that means. Keys hold letters, digits and ``_./-``, and are the same for the same thing all along.

    Args:
        logger: of either Lightning, or anything with ``log_metrics``. It is asked for its experiment as late as
            possible, since some ask a server then.
    """

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    @property
    def shows_figures(self) -> bool:
        """Whether figures are worth drawing."""
        return False

    def numbers(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers by key; NaN and Inf as they are."""
        self.logger.log_metrics(values, step=step)

    def text(self, key: str, text: str, step: int) -> None:
        """Show a paragraph, its line breaks kept."""

    def histograms(self, each: Mapping[str, Histograms], step: int) -> None:
        """Show histograms by key, each of one row, on the CPU."""

    def figure(self, key: str, figure: Any, step: int) -> None:
        """Show a figure of matplotlib's."""

    def page(self, key: str, path: Path, step: int) -> None:
        """Keep a page of HTML, where it can be opened from."""

    def alert(self, title: str, text: str) -> None:
        """Tell the user outside of the dashboard, as by mail."""

    def charts(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Lay out charts by group and title: of each, the keys that it shows, as regular expressions."""
