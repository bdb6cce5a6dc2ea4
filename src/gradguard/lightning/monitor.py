"""Norms on the dashboards, and nothing else."""

from __future__ import annotations

from typing import Literal, Union, final

from gradguard.lightning.base import AbstractGuardCallback
from gradguard.lightning.settings import Detail, Settings, checked


@final
class GradientMonitor(AbstractGuardCallback):
    """Logs norms of gradients and weights, update ratios and activations: :class:`GradGuard` without the findings.

    Beside a ``GradGuard`` it shares that one's guard: nothing is measured twice.

    Args:
        every_n_steps: see :class:`GradGuard`; as the next two, alike in all callbacks of a Trainer.
        norm_type: p of the gradient norms, > 0 or ``inf``.
        max_points: most points that the history keeps of a series, >= 2.
        detail: what is logged of each sampled step beside the totals: ``module``, ``parameter`` or ``total``.
        histograms: whether gradient histograms are logged.
        prog_bar: whether the total gradient norm is shown on the progress bar.
        activations: whether layers' outputs and units are looked at on sampled steps; not those of compiled models.

    Attributes:
        guard: the :class:`gradguard.Guard` of the last fit.

    Raises:
        ValueError: an argument out of range.

    Host sync: one every ``every_n_steps`` and device. Mutates: nothing.
    """

    def __init__(
        self,
        *,
        every_n_steps: int = 50,
        norm_type: Union[float, Literal["inf"]] = 2.0,  # noqa: UP007  # LightningCLI reads it on every Python
        max_points: int = 1024,
        detail: Detail = "module",
        histograms: bool = False,
        prog_bar: bool = False,
        activations: bool = True,
    ) -> None:
        super().__init__()
        self._settings = checked(
            every_n_steps=every_n_steps,
            norm_type=norm_type,
            max_points=max_points,
            detectors=[],
            detail=detail,
            histograms=histograms,
            prog_bar=prog_bar,
            activations=activations,
        )

    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""
        return self._settings
