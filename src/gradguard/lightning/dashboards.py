"""The Trainer's loggers, each asked for what it can do; one that fails is left out and never stops training."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch

from gradguard.errors import GradGuardWarning
from gradguard.functional import Histograms


@final
class Dashboards:
    """Writes scalars to every logger, text and histograms to those that have them.

    Args:
        loggers: of either Lightning, or anything with ``log_metrics``.
    """

    def __init__(self, loggers: Sequence[Any]) -> None:
        self.loggers = list(loggers)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write numbers; NaN and Inf as they are."""
        metrics = {key_of(name): value for name, value in values.items()}
        if metrics:
            self._each(lambda logger: logger.log_metrics(metrics, step=step))

    def text(self, name: str, text: str, step: int) -> None:
        """Write a paragraph where the logger can show one: TensorBoard, W&B, MLflow, Comet."""
        self._each(lambda logger: _write_text(logger, key_of(name), text, step))

    def histograms(self, names: Sequence[str], of: Histograms, step: int) -> None:
        """Write histograms where the logger can show them: TensorBoard, W&B."""
        for row, name in enumerate(names):
            one = Histograms(*(field[row] for field in of))
            self._each(lambda logger, n=name, one=one: _write_histogram(logger, key_of(n), one, step))  # type: ignore[misc]  # defaults bind the loop's values

    def _each(self, write: Callable[[Any], None]) -> None:
        for logger in list(self.loggers):
            try:
                write(logger)
            except Exception as error:
                self.loggers.remove(logger)
                warnings.warn(
                    f"{type(logger).__name__} gets no more of GradGuard's numbers, it failed: "
                    f"{type(error).__name__}: {error}. Training goes on.",
                    GradGuardWarning,
                    stacklevel=2,
                )


def key_of(name: str) -> str:
    """Spell a name as every backend takes it: letters, digits and ``_./-``, below ``gradguard/``."""
    return "gradguard/" + re.sub(r"[^A-Za-z0-9_./-]", "_", name)


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


def _write_histogram(logger: Any, key: str, one: Histograms, step: int) -> None:
    low, high, total, squares = map(float, (one.lows, one.highs, one.sums, one.squares))
    edges = torch.linspace(low, high, len(one.counts) + 1, dtype=torch.float64)
    if _is(logger, "WandbLogger"):
        import wandb

        logger.log_metrics({key: wandb.Histogram(np_histogram=(one.counts.numpy(), edges.numpy()))}, step=step)
    elif hasattr(getattr(logger, "experiment", None), "add_histogram_raw"):
        logger.experiment.add_histogram_raw(
            key,
            min=low,
            max=high,
            num=float(one.counts.sum()),
            sum=total,
            sum_squares=squares,
            bucket_limits=edges[1:].tolist(),
            bucket_counts=one.counts.tolist(),
            global_step=step,
        )
