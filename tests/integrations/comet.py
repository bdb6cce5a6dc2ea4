"""A stand-in for Comet, which is not installed here: with the signatures of comet-ml 3.58's ``OfflineExperiment``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers.logger import Logger


class Experiment:
    """Keeps what it is given, under the name of the method. No ``**kwargs``: a call that Comet refuses fails here."""

    def __init__(self) -> None:
        self.kept: list[tuple[str, Any]] = []

    def log_text(self, text: str, step: int | None = None, metadata: dict[str, Any] | None = None) -> None:
        self.kept.append(("text", (text, step, metadata)))

    def log_figure(
        self,
        figure_name: str | None = None,
        figure: Any = None,
        overwrite: bool = False,
        step: int | None = None,
        metadata: dict[str, Any] | None = None,
        format: str = "auto",
    ) -> None:
        assert hasattr(figure, "savefig")
        self.kept.append(("figure", (figure_name, step)))

    def log_html(self, html: str, clear: bool = False) -> None:
        assert isinstance(html, str)
        self.kept.append(("html", (html, clear)))

    def __internal_api__log_metrics__(
        self,
        dic: dict[str, Any],
        prefix: str | None = None,
        step: int | None = None,
        epoch: int | None = None,
        framework: str | None = None,
        include_context: bool = True,
    ) -> None:
        self.kept.append(("numbers", (dic, step)))

    def named(self, kind: str) -> list[Any]:
        return [what for name, what in self.kept if name == kind]


class Old:
    """Of a Comet that knows numbers only."""

    named, __init__ = Experiment.named, Experiment.__init__
    __internal_api__log_metrics__ = Experiment.__internal_api__log_metrics__


class CometLogger(Logger):
    """Has the name of Lightning's, which can't be made without Comet, and writes numbers as that one does."""

    def __init__(self, folder: Path, experiment: Any = None) -> None:
        super().__init__()
        self.experiment = Experiment() if experiment is None else experiment
        self.folder = folder

    name, version = "comet", "experiment_key"

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = values.pop("epoch", None)
        self.experiment.__internal_api__log_metrics__(
            values, step=step, epoch=epoch, prefix=None, framework="pytorch-lightning"
        )
