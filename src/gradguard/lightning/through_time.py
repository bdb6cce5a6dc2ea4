"""Where in the sequence the gradient fades or grows, as a callback."""

from __future__ import annotations

from typing import Literal, Optional, Union, final

from gradguard.detect import ExplodingTime, SaturatedGates, VanishingTime
from gradguard.lightning.base import AbstractGuardCallback
from gradguard.lightning.settings import Settings, checked
from gradguard.probe import ThroughTime


@final
class ThroughTimeMonitor(AbstractGuardCallback):
    """Looks into the recurrent layers of a model on sampled steps: how far back the gradient reaches, and the gates.

    Fused ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN``, all of ``gradguard.nn``, and loops of one's own that call
    :func:`gradguard.probe.watch_state`. Logs horizon, rate and growth of each layer, and the mean, spread and saturated
    shares of its gates; draws, where a logger shows figures and matplotlib is there, what is left of the gradient over
    lag and training step. Says so where a gradient vanishes or explodes through time, or a gate stands still.

    Beside a ``GradGuard`` it shares that one's guard. ``GradGuard(through_time=True)`` is both.

    Args:
        sample_every_n_steps: optimizer steps between two looks, >= 1; the first steps are looked at more often.
        lag: how many steps back the task reaches, >= 1, where that is known.
        modules: names of the recurrent modules to look at; all of them by default.
        figures: whether figures are drawn: at the end of the fit, and as often as the looks have doubled.
        every_n_steps: see :class:`GradGuard`; as the next two, alike in all callbacks of a Trainer.
        norm_type: p of the gradient norms, > 0 or ``inf``.
        max_points: most points that the history keeps of a series, >= 2.

    Attributes:
        guard: the :class:`gradguard.Guard` of the last fit.

    Raises:
        ValueError: an argument out of range; at the start of the fit, a model without a recurrent module.

    Host sync: one every ``every_n_steps`` and device. Mutates: nothing: weights and random numbers are bit for bit
    those of a fit without it.
    """

    def __init__(  # annotated as LightningCLI can read it on every supported Python
        self,
        *,
        sample_every_n_steps: int = 200,
        lag: Optional[int] = None,  # noqa: UP045
        modules: Optional[list[str]] = None,  # noqa: UP045
        figures: bool = True,
        every_n_steps: int = 50,
        norm_type: Union[float, Literal["inf"]] = 2.0,  # noqa: UP007
        max_points: int = 1024,
    ) -> None:
        super().__init__()
        self._settings = checked(
            every_n_steps=every_n_steps,
            norm_type=norm_type,
            max_points=max_points,
            detectors=[ExplodingTime(), VanishingTime(), SaturatedGates()],
            detail="total",
            figures=figures,
            through_time=ThroughTime(sample_every_n_steps, lag, modules),
        )

    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""
        return self._settings
