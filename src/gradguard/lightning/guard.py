"""The product as one callback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Optional, Union, final

from gradguard.clip import AbstractRescaler
from gradguard.detect import AbstractDetector, Finding
from gradguard.lightning.base import AbstractGuardCallback
from gradguard.lightning.settings import Detail, Settings, checked
from gradguard.probe import ThroughTime
from gradguard.recover import Skip


@final
class GradGuard(AbstractGuardCallback):
    """Measures the gradients of every optimizer step, finds what is wrong with them, and prints a summary.

    It only looks: weights, gradients and random numbers are bit for bit those of a fit without it, unless ``clip`` or
    ``recover`` asks for more. Automatic and manual optimisation, accumulation, ``16-mixed`` and ``bf16``, several
    optimizers, DDP and FSDP2 need nothing more. Not for FSDP1 and DeepSpeed, which are refused by name.

    Numbers go to all of the Trainer's loggers, on their x axis, under the names that the README lists; findings as soon
    as they are noticed, as text where a logger has it. Beside the logs of the first logger, a run record is written.

    Args:
        every_n_steps: steps between two looks, >= 1. In between nothing is read on the host, and a finding is noticed
            at the next one.
        norm_type: p of the gradient norms, > 0 or ``inf``.
        detectors: what to look for; :func:`gradguard.detect.default_detectors` by default.
        detail: what is logged of each sampled step beside the totals: norms and update ratios of each ``module``, of
            each ``parameter``, both with each layer's activations, or nothing (``total``).
        histograms: whether gradient histograms are logged every ``every_n_steps``. Costs three passes over all
            gradients then.
        prog_bar: whether the total gradient norm is shown on the progress bar, at each step. Costs a host read a step.
        summary: whether the run is told in a few lines at the end of the fit, also one that an exception ends.
        strict: whether a critical finding ends the fit with a :class:`gradguard.errors.CriticalFindingError`, once a
            checkpoint is saved.
        record: whether a run record is written to ``gradguard`` beside the first logger's files.
        run_dir: another folder for the run record.
        report: whether the report, ``report.html``, is written into that folder at the end of the fit, also one that an
            exception ends, and handed to the loggers that keep pages: W&B, MLflow, Comet.
        max_points: most points that the history keeps of a series, >= 2.
        clip: clips gradients, too: see :class:`GradientClipping`.
        recover: leaves out steps whose gradients are not finite: :class:`gradguard.recover.Skip`.
        through_time: whether recurrent modules are looked into on sampled steps, or how, by a
            :class:`gradguard.probe.ThroughTime`: see :class:`ThroughTimeMonitor`.
        figures: whether figures of that are drawn, and with ``report`` of all layers over the run, for the loggers that
            show them.
        activations: whether layers' outputs and units are looked at on sampled steps; not those of compiled models.
        notify: a function, or several, to call with each :class:`gradguard.Finding` as soon as it is noticed, on rank
            0: once for each symptom, and again where it gets worse. One that fails warns once, and the fit goes on.

    Attributes:
        guard: the :class:`gradguard.Guard` of the last fit, closed once that is over: ``guard.diagnose()``,
            ``guard.history``, ``guard.events``. None after ``ddp_spawn`` and ``ddp_fork``, whose processes are gone:
            read the run record.

    Raises:
        ValueError: an argument out of range.
        TypeError: something among the detectors that is none.

    Host sync: one per look and device, and what ``Skip`` needs. Mutates: nothing; gradients, with ``clip``.
    """

    def __init__(  # annotated as LightningCLI can read it on every supported Python
        self,
        *,
        every_n_steps: int = 50,
        norm_type: Union[float, Literal["inf"]] = 2.0,  # noqa: UP007
        detectors: Optional[list[AbstractDetector]] = None,  # noqa: UP045
        detail: Detail = "module",
        histograms: bool = False,
        prog_bar: bool = False,
        summary: bool = True,
        strict: bool = False,
        record: bool = True,
        run_dir: Optional[Union[str, Path]] = None,  # noqa: UP007, UP045
        report: bool = False,
        max_points: int = 1024,
        clip: Optional[Union[AbstractRescaler, dict[str, AbstractRescaler]]] = None,  # noqa: UP007, UP045
        recover: Optional[Skip] = None,  # noqa: UP045
        through_time: Union[bool, ThroughTime] = False,  # noqa: UP007
        figures: bool = True,
        activations: bool = True,
        notify: Optional[Union[Callable[[Finding], None], list[Callable[[Finding], None]]]] = None,  # noqa: UP007, UP045
    ) -> None:
        super().__init__()
        self._settings = checked(
            every_n_steps=every_n_steps,
            norm_type=norm_type,
            detectors=detectors,
            detail=detail,
            histograms=histograms,
            prog_bar=prog_bar,
            summary=summary,
            strict=strict,
            record=record,
            run_dir=run_dir,
            report=report,
            max_points=max_points,
            clip=clip,
            recover=recover,
            through_time=through_time,
            figures=figures and (report or bool(through_time)),
            activations=activations,
            notify=notify,
        )

    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""
        return self._settings
