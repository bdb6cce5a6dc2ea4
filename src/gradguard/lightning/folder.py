"""Where a Trainer's run record lies."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from gradguard.errors import GradGuardWarning, RecordError
from gradguard.record import check_folder
from gradguard.record.manifest import NAME, read_manifest


def default_folder(trainer: Any, run: str | None) -> Path | None:
    """Give ``gradguard`` in the first logger's own folder, or None where the Trainer writes no logs.

    A folder that holds another run than ``run`` is left alone: ``gradguard-2`` and so on come next.
    """
    if not trainer.loggers:
        return None
    try:
        folder = _free(_home(trainer.loggers[0], trainer), run)
        check_folder(folder)
    except Exception as error:  # nobody asked for this folder, and some loggers ask a server: no reason to stop
        warnings.warn(f"There will be no run record: {error}", GradGuardWarning, stacklevel=2)
        return None
    return folder


def _home(logger: Any, trainer: Any) -> Path:
    """Give the folder of Lightning's own checkpoints."""
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def _free(home: Path, run: str | None) -> Path:
    folder, number = home / "gradguard", 1
    while (folder / NAME).exists() and _run(folder) != run:
        number += 1
        folder = home / f"gradguard-{number}"
    return folder


def _run(folder: Path) -> str | None:
    try:
        return read_manifest(folder).run
    except RecordError:
        return None  # somebody's all the same
