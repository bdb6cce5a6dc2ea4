"""Which dashboard a logger writes to."""

from __future__ import annotations

from typing import Any

from gradguard.integrations.base import AbstractDashboard
from gradguard.integrations.comet import Comet
from gradguard.integrations.mlflow import MLflow
from gradguard.integrations.tensorboard import TensorBoard
from gradguard.integrations.wandb import WeightsAndBiases

_BY_NAME = {"WandbLogger": WeightsAndBiases, "MLFlowLogger": MLflow, "CometLogger": Comet}


def dashboard_of(logger: Any) -> AbstractDashboard:
    """Give the dashboard of a logger, without asking that for its experiment.

    By the names of its classes, since Lightning comes as two copies of one source; any other by what it can do.
    """
    names = (cls.__name__ for cls in type(logger).__mro__)
    kind = next((_BY_NAME[name] for name in names if name in _BY_NAME), TensorBoard)
    return kind(logger)
