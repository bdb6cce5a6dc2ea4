"""W&B: tables of text, histograms, images, the report as a page, and alerts; offline, too."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from gradguard.functional import Histograms
from gradguard.integrations.bars import edges
from gradguard.integrations.base import AbstractDashboard

LONGEST = 63  # characters of an alert's title


@final
class WeightsAndBiases(AbstractDashboard):
    """Writes through the logger, which knows W&B's own count of steps."""

    def text(self, key: str, text: str, step: int) -> None:
        """Show it as a table of one row."""
        self.logger.log_text(key, columns=["step", "text"], data=[[step, text]], step=step)

    def histograms(self, each: Mapping[str, Histograms], step: int) -> None:
        """Show them with the bars that were counted."""
        import wandb

        pairs = {key: (one.counts.numpy(), edges(one).numpy()) for key, one in each.items()}
        self.logger.log_metrics({key: wandb.Histogram(np_histogram=pair) for key, pair in pairs.items()}, step=step)

    @property
    def shows_figures(self) -> bool:
        """Always."""
        return True

    def figure(self, key: str, figure: Any, step: int) -> None:
        """Show it as an image."""
        import wandb

        self.logger.log_metrics({key: wandb.Image(figure)}, step=step)

    def page(self, key: str, path: Path, step: int) -> None:
        """Show it as a panel, as it is: W&B would put a style sheet from the network into it."""
        import wandb

        text = path.read_text(encoding="utf-8")
        self.logger.log_metrics({key: wandb.Html(text, inject=False, data_is_not_path=True)}, step=step)

    def alert(self, title: str, text: str) -> None:
        """Tell it by mail or Slack, as the user's account says."""
        self.logger.experiment.alert(title=title[:LONGEST], text=text, level="ERROR")
