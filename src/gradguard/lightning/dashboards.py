"""The Trainer's loggers together; one that fails is left out and never stops training."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from gradguard.errors import GradGuardWarning
from gradguard.functional import Histograms
from gradguard.integrations import AbstractDashboard, dashboard_of
from gradguard.lightning.keys import Keys

logger = logging.getLogger("gradguard")
_KINDS = ("numbers", "texts", "histograms", "figures", "charts", "alerts", "pages")


@final
class Dashboards:
    """Writes numbers to every logger, and whatever else a logger can show to those that can.

    A logger that fails at numbers gets nothing more; one that fails at anything else keeps the rest. It warns once.

    Args:
        loggers: of either Lightning, or anything with ``log_metrics``.
        key: spells the names.
    """

    def __init__(self, loggers: Sequence[Any], key: Keys) -> None:
        self.key = key
        boards = [dashboard_of(logger) for logger in loggers]
        self.takers = {kind: list(boards) for kind in _KINDS}
        self.warned: list[AbstractDashboard] = []
        self.alerted: set[str] = set()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers; NaN and Inf as they are."""
        metrics = {self.key(name): value for name, value in values.items()}
        if metrics:
            self._each("numbers", lambda board: board.numbers(metrics, step))

    def text(self, name: str, text: str, step: int) -> None:
        """Write a paragraph where the logger can show one: TensorBoard, W&B, MLflow, Comet."""
        self._each("texts", lambda board: board.text(self.key(name), text, step))

    def histograms(self, names: Sequence[str], of: Histograms, step: int) -> None:
        """Write histograms where the logger can show them: TensorBoard, W&B."""
        each = {self.key(name): Histograms(*(field[row] for field in of)) for row, name in enumerate(names)}
        self._each("histograms", lambda board: board.histograms(each, step))

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Show a figure of matplotlib's where the logger can: TensorBoard, W&B, MLflow, Comet."""
        self._each("figures", lambda board: board.figure(self.key(name), figure, step))

    def want_figures(self) -> bool:
        """Say whether any logger shows figures."""
        wanted: list[AbstractDashboard] = []
        self._each("figures", lambda board: wanted.extend([board] * board.shows_figures))
        return bool(wanted)

    def page(self, name: str, path: Path, step: int) -> None:
        """Hand over a page of HTML where the logger keeps one: W&B, MLflow, Comet."""
        self._each("pages", lambda board: board.page(self.key(name), path, step))

    def alert(self, name: str, text: str) -> None:
        """Tell the user where the logger can reach him, of each thing once: W&B."""
        if name not in self.alerted:
            self.alerted.add(name)
            self._each("alerts", lambda board: board.alert(f"GradGuard: {name}", text))

    def charts(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Group charts where the logger can: TensorBoard."""
        self._each("charts", lambda board: board.charts(groups))

    def _each(self, kind: str, write: Callable[[AbstractDashboard], None]) -> None:
        for board in list(self.takers[kind]):
            try:
                write(board)
            except Exception as error:
                for lost in _KINDS if kind == "numbers" else (kind,):
                    self.takers[lost] = [taker for taker in self.takers[lost] if taker is not board]
                self._say(
                    board,
                    f"{type(board.logger).__name__} gets no more of GradGuard's {kind}, it failed: "
                    f"{type(error).__name__}: {error}. Training goes on.",
                )

    def _say(self, board: AbstractDashboard, what: str) -> None:
        if board in self.warned:
            logger.info("%s", what)
        else:
            self.warned.append(board)
            warnings.warn(what, GradGuardWarning, stacklevel=4)
