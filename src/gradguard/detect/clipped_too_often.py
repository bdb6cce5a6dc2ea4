"""A limit that lies far below what the gradients usually are."""

from __future__ import annotations

from collections import deque
from statistics import median, quantiles
from typing import final

from gradguard.detect.base import AbstractDetector, Persistence
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class ClippedTooOften(AbstractDetector):
    """Most steps lose most of their gradient to the guard's own clipper: it sets the length of the steps.

    Rule: at ``share`` of the last ``window`` steps and more, the clipper left less than ``coefficient`` of the total
    norm. That is ``info``, since many runs train well like that; a warning where it left less than ``severe``. How
    often a step is clipped does not count by itself: a clipper such as AutoClip clips nine steps in ten by a little,
    and is meant to. Steps that are skipped or overflow are left out.

    What it can't see: a clipping that is not the guard's (there is ``clipped_upstream`` for that), and rescalers, which
    give gradients another scale on purpose.

    Args:
        coefficient: in (0, 1).
        severe: in (0, ``coefficient``].
        window: steps to look back over, >= 2.
        share: in (0, 1].
    """

    def __init__(
        self, *, coefficient: float = 0.5, severe: float = 0.01, window: int = 100, share: float = 0.8
    ) -> None:
        if not 0 < severe <= coefficient < 1 or window < 2 or not 0 < share <= 1:
            raise ValueError(
                "ClippedTooOften needs 0 < severe <= coefficient < 1, window >= 2 and 0 < share <= 1, got "
                f"{severe=}, {coefficient=}, {window=}, {share=}."
            )
        self.coefficient, self.severe, self.window, self.share = coefficient, severe, window, share
        self.often, self.severely = Persistence(window, share), Persistence(window, share)
        self.totals: deque[float] = deque(maxlen=window)
        self.coefficients: deque[float] = deque(maxlen=window)
        self.optimizer = ""
        self.evidence: dict[str, object] = {}

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        if block.clips is None or not block.clips.limits:
            return
        judged = ~block.overflow & ~block.skipped & block.totals.isfinite()
        columns = (block.steps, judged, block.totals, block.clips.coefficients[:, 0])
        for step, counts, total, coefficient in zip(*(column.tolist() for column in columns), strict=True):
            if counts and coefficient == coefficient:
                self.totals.append(total)
                self.coefficients.append(coefficient)
                is_on = self.often.observe(step, coefficient < self.coefficient)
                self.severely.observe(step, coefficient < self.severe)
                if is_on and len(self.totals) > 1:
                    self.evidence = {
                        "share of steps clipped": sum(c < 1 for c in self.coefficients) / len(self.coefficients),
                        "median coefficient": median(self.coefficients),
                        "median norm before": median(self.totals),
                        "95 % of norms below": quantiles(self.totals, n=20, method="inclusive")[-1],
                    }

    def findings(self) -> tuple[Finding, ...]:
        """Say how much is left, and which limit would clip one step in twenty."""
        spell = self.often.spell
        if spell is None:
            return ()
        severe = self.severely.spell is not None
        finding = Finding(
            Symptom.CLIPPED_TOO_OFTEN,
            Severity.WARNING if severe else Severity.INFO,
            (),
            self.optimizer,
            spell.first_step,
            spell.last_step,
            spell.active,
            self.evidence,
            f"Clipping leaves {self.evidence['median coefficient']:.2g} of the gradient norm at the usual step: the "
            "limit, rather than the gradient, says how long the steps are.",
        )
        return (finding,)
