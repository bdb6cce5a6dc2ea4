"""Comet: text, figures, and the report on the HTML tab, with whatever of these an experiment has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, final

from gradguard.integrations.base import AbstractDashboard


@final
class Comet(AbstractDashboard):
    """Asks the experiment for each method: an offline one, an existing one and that of an older Comet differ."""

    def text(self, key: str, text: str, step: int) -> None:
        """Show it on the text tab, its key beside it."""
        if log := self._method("log_text"):
            log(text, step=step, metadata={"key": key})

    @property
    def shows_figures(self) -> bool:
        """Whether there is ``log_figure``."""
        return self._method("log_figure") is not None

    def figure(self, key: str, figure: Any, step: int) -> None:
        """Show it on the graphics tab."""
        if log := self._method("log_figure"):
            log(figure_name=key, figure=figure, step=step)

    def page(self, key: str, path: Path, step: int) -> None:
        """Show it on the HTML tab, whose scripts run in a frame of their own; what is there stays."""
        if log := self._method("log_html"):
            log(path.read_text(encoding="utf-8"))

    def _method(self, name: str) -> Callable[..., Any] | None:
        found: Callable[..., Any] | None = getattr(self.logger.experiment, name, None)
        return found
