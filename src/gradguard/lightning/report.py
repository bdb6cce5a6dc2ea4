"""The report at the end of a fit, beside its run record."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

from gradguard.errors import GradGuardWarning
from gradguard.lightning.dashboards import Dashboards

NAME = "report.html"
logger = logging.getLogger("gradguard")


def write_report(folder: Path, dashboards: Dashboards, x: int) -> Path | None:
    """Write it, say where, and hand it to the dashboards that keep pages. One that fails warns; the fit goes on.

    Args:
        folder: of the run record, which is closed.
        dashboards: who may keep it.
        x: of the last step.

    Returns:
        Where it is, or None.
    """
    try:
        from gradguard.report import write_page  # only where a report is asked for

        path = write_page([folder], folder / NAME)
    except Exception as error:
        warnings.warn(
            f"There is no report of this fit, writing it failed: {type(error).__name__}: {error}. The run record is in "
            f"{folder}.",
            GradGuardWarning,
            stacklevel=2,
        )
        return None
    logger.info("The report is in %s", path)
    dashboards.page("report", path, x)
    return path
