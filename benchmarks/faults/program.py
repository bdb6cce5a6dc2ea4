"""What a program of the corpus is: a training loop to be run at some learning rates, and what was planted in it.

The unit that is counted is a run: a program at one of its learning rates, with one seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.clip import AbstractRescaler
from gradguard.detect import Symptom

Record = Callable[[Tensor, "str | None"], None]


@dataclass(frozen=True)
class Loop:
    """One training loop, ready to run.

    Attributes:
        models: by name; a single one has the empty name.
        optimizers: by name; a single one is called ``optimizer``.
        step: makes the next optimizer step or steps, given their number (from 1) and whom to tell the loss.
        score: how good the model is on held-out data: 1 at best, about 0 where it is no better than a guess. An
            accuracy, a share of variance explained, or 1 less a distance.
        train_score: the same on training data, for rules that ask for it.
        clip: a clipper for the guard, where the loop has one clipped by it.
    """

    models: Mapping[str, nn.Module]
    optimizers: Mapping[str, Optimizer]
    step: Callable[[int, Record], None]
    score: Callable[[], float]
    train_score: Callable[[], float]
    clip: AbstractRescaler | None = None


@dataclass(frozen=True)
class Program:
    """A training program.

    Attributes:
        name: unique; what its half of the corpus follows from.
        make: builds the loop for a learning rate; draws from torch's global generator alone.
        rates: learning rates, of which each makes runs.
        label: the symptom that the planted change leads to; None of a healthy program.
        sibling: the healthy program that it was before the change.
        steps: optimizer steps of a run.
        onset: step from which the fault is there.
        through_time: whether recurrent modules are looked into.
        about: what was planted; or why somebody might take a healthy program for a sick one.
        family: the module that it stands in, below ``benchmarks.faults``; set when the corpus is read.
        is_seen: whether rules were tuned after a report on it; set when the corpus is read.
    """

    name: str
    make: Callable[[float], Loop]
    rates: tuple[float, ...]
    label: Symptom | None = None
    sibling: str | None = None
    steps: int = 600
    onset: int = 1
    through_time: bool = False
    about: str = ""
    family: str = ""
    is_seen: bool = False

    @property
    def reports(self) -> bool:
        """Whether it belongs to the half that is reported, rather than to the one that rules are tuned on."""
        return not self.is_seen and hashlib.sha256(self.name.encode()).digest()[0] % 2 == 0
