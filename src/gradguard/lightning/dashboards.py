"""The Trainer's loggers, each asked for what it can do; one that fails is left out and never stops training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from gradguard.errors import GradGuardWarning
from gradguard.functional import Histograms
from gradguard.lightning.keys import Keys

_KINDS = ("numbers", "texts", "histograms", "figures")


@final
class Dashboards:
    """Writes scalars to every logger, text and histograms to those that have them.

    A logger that fails at numbers gets nothing more; one that fails at anything else keeps the rest.

    Args:
        loggers: of either Lightning, or anything with ``log_metrics``.
        key: spells the names.
    """

    def __init__(self, loggers: Sequence[Any], key: Keys) -> None:
        self.key = key
        self.takers = {kind: list(loggers) for kind in _KINDS}

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers; NaN and Inf as they are."""
        metrics = {self.key(name): value for name, value in values.items()}
        if metrics:
            self._each("numbers", lambda logger: logger.log_metrics(metrics, step=step))

    def text(self, name: str, text: str, step: int) -> None:
        """Write a paragraph where the logger can show one: TensorBoard, W&B, MLflow, Comet."""
        self._each("texts", lambda logger: _write_text(logger, self.key(name), text, step))

    def histograms(self, names: Sequence[str], of: Histograms, step: int) -> None:
        """Write histograms where the logger can show them: TensorBoard, W&B."""
        each = {self.key(name): Histograms(*(field[row] for field in of)) for row, name in enumerate(names)}
        self._each("histograms", lambda logger: _write_histograms(logger, each, step))

    def figure(self, name: str, figure: Any, step: int) -> None:
        """Show a figure of matplotlib's where the logger can: TensorBoard, W&B, MLflow, Comet."""
        self._each("figures", lambda logger: _show_figure(logger, self.key(name), figure, step))

    def _each(self, kind: str, write: Callable[[Any], None]) -> None:
        for logger in list(self.takers[kind]):
            try:
                write(logger)
            except Exception as error:
                for lost in _KINDS if kind == "numbers" else (kind,):
                    self.takers[lost] = [taker for taker in self.takers[lost] if taker is not logger]
                warnings.warn(
                    f"{type(logger).__name__} gets no more of GradGuard's {kind}, it failed: "
                    f"{type(error).__name__}: {error}. Training goes on.",
                    GradGuardWarning,
                    stacklevel=2,
                )


def _is(logger: Any, name: str) -> bool:
    return any(cls.__name__ == name for cls in type(logger).__mro__)  # there are two trees of Lightning's classes


def _write_text(logger: Any, key: str, text: str, step: int) -> None:
    if _is(logger, "WandbLogger"):
        logger.log_text(key, columns=["step", "text"], data=[[step, text]], step=step)
    elif _is(logger, "MLFlowLogger"):
        logger.experiment.log_text(logger.run_id, text, f"{key}-{step}.txt")
    elif _is(logger, "CometLogger"):
        logger.experiment.log_text(text, step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_text"):
        logger.experiment.add_text(key, "```text\n" + text + "\n```", step)


def _write_histograms(logger: Any, each: Mapping[str, Histograms], step: int) -> None:
    if _is(logger, "WandbLogger"):
        import wandb

        pairs = {key: (one.counts.numpy(), _edges(one).numpy()) for key, one in each.items()}
        logger.log_metrics({key: wandb.Histogram(np_histogram=pair) for key, pair in pairs.items()}, step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_histogram_raw"):
        for key, one in each.items():
            logger.experiment.add_histogram_raw(
                key,
                min=float(one.lows),
                max=float(one.highs),
                num=float(one.counts.sum()),
                sum=float(one.sums),
                sum_squares=float(one.squares),
                bucket_limits=_edges(one)[1:].tolist(),
                bucket_counts=one.counts.tolist(),
                global_step=step,
            )


def _show_figure(logger: Any, key: str, figure: Any, step: int) -> None:
    if _is(logger, "WandbLogger"):
        import wandb

        logger.log_metrics({key: wandb.Image(figure)}, step=step)
    elif _is(logger, "MLFlowLogger"):
        logger.experiment.log_figure(logger.run_id, figure, f"{key}-{step}.png")
    elif _is(logger, "CometLogger"):
        logger.experiment.log_figure(figure_name=key, figure=figure, step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_figure"):
        logger.experiment.add_figure(key, figure, step, close=False)


def _edges(one: Histograms) -> Tensor:
    return torch.linspace(float(one.lows), float(one.highs), len(one.counts) + 1, dtype=torch.float64)
