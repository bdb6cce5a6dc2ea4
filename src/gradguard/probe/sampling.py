"""How often, and where, a run is looked at through time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from gradguard.arguments import whole_number


@final
@dataclass(frozen=True)
class ThroughTime:
    """What ``Guard(..., through_time=...)`` looks at, and how often; ``through_time=True`` is ``ThroughTime()``.

    Args:
        every_n_steps: optimizer steps between two looks, >= 1. In the beginning there are more, so that a short run is
            judged, too: at 1 to 4, 8, 16, 32 and 64, then (80, 96, 112, 128, 160 and so on) no farther apart than a
            quarter of the steps so far. A look takes half to two times as long as the recurrent layers' own forward and
            backward pass, and longer where an ``nn.LSTM`` is tiny.
        lag: how many steps back the task reaches, >= 1, where that is known: it decides whether a gradient that fades
            is a fault.
        loss_at_end: whether in loops of one's own, whose states :func:`gradguard.probe.watch_state` tells, the loss is
            on the last step alone. Only then can a gradient that grows or fades there be judged without a lag.
        modules: names of the recurrent modules to look at, as ``named_modules`` spells them; all of them by default.
            ``()`` for a loop of one's own that has only :func:`gradguard.probe.watch_state`.

    Raises:
        ValueError: an argument out of range.
    """

    every_n_steps: int = 200
    lag: int | None = None
    modules: Sequence[str] | None = None
    loss_at_end: bool = False

    def __post_init__(self) -> None:
        """Look at the arguments where they were typed."""
        whole_number("ThroughTime", "every_n_steps", self.every_n_steps)
        if self.lag is not None:
            whole_number("ThroughTime", "lag", self.lag)
        if isinstance(self.modules, str):
            raise TypeError(f"ThroughTime needs modules to be a list of names, got {self.modules!r}.")

    def is_due(self, step: int) -> bool:
        """Say whether a step is looked at."""
        quarter = 1 << max(step.bit_length() - 3, 0)  # of the largest power of two up to it
        return is_sampled(step, self.every_n_steps) or (
            step > 64 and quarter < self.every_n_steps and step % quarter == 0
        )


def is_sampled(step: int, every: int) -> bool:
    """Say whether dear measurements are due: at 1 to 4, 8, 16 ..., then each ``every`` steps; alike on all ranks."""
    return step % every == 0 or (step < every and (step < 4 or step & (step - 1) == 0))
