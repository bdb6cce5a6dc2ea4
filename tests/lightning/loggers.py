"""Loggers of backends that need a place of their own: nothing leaves the test's folder, nothing asks a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


def wandb_logger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Offline; its run is finished by ``readers.finish_wandb``."""
    pytest.importorskip("wandb")
    from pytorch_lightning.loggers import WandbLogger

    for name in ("DIR", "CACHE_DIR", "CONFIG_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        monkeypatch.setenv(f"WANDB_{name}", str(folder))
    for name, value in {"MODE": "offline", "SILENT": "true", "CONSOLE": "off", "ERROR_REPORTING": "false"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    return WandbLogger(project="gradguard", save_dir=folder, offline=True)


def mlflow_logger(folder: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> Any:
    """In SQLite, its artifacts in ``artifacts``."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    from pytorch_lightning.loggers import MLFlowLogger

    return MLFlowLogger(str(folder), tracking_uri=uri, artifact_location=(folder / "artifacts").as_uri())
