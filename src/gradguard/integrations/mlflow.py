"""MLflow: text, figures and the report, as artifacts of the run."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, final

from gradguard.integrations.base import AbstractDashboard


@final
class MLflow(AbstractDashboard):
    """Writes files below ``gradguard/``, those of a step under its number."""

    def text(self, key: str, text: str, step: int) -> None:
        """Keep it as a file of text."""
        self.logger.experiment.log_text(self.logger.run_id, text, f"{key}-{step}.txt")

    @property
    def shows_figures(self) -> bool:
        """Always."""
        return True

    def figure(self, key: str, figure: Any, step: int) -> None:
        """Keep it as an image."""
        self.logger.experiment.log_figure(self.logger.run_id, figure, f"{key}-{step}.png")

    def page(self, key: str, path: Path, step: int) -> None:
        """Keep it under its own name; a run that goes on replaces it."""
        self.logger.experiment.log_artifact(self.logger.run_id, str(path), str(PurePosixPath(key).parent))
