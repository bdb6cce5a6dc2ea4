"""What happened to the total gradient norm since it was last logged: a spike between two logged steps is not lost."""

from __future__ import annotations

from typing import final

from torch import Tensor

from gradguard.metrics import GradNormLast, GradNormMax, GradNormMean, NonFiniteShare, OverflowCount


@final
class Totals:
    """GradGuard's metrics over the steps since the last time, of one optimizer. All ranks see the same numbers."""

    def __init__(self) -> None:
        alone = {"sync_on_compute": False}  # they are equal on all ranks already
        self.norms = {
            "grad_norm/total": GradNormLast(**alone),
            "grad_norm/mean": GradNormMean(**alone),
            "grad_norm/max": GradNormMax(**alone),
        }
        self.non_finite, self.overflows = NonFiniteShare(**alone), OverflowCount(**alone)
        self.steps = 0

    def update(self, totals: Tensor, overflow: Tensor) -> None:
        """Take in the totals [R] of some steps, and which of these [R] a loss scaler skipped."""
        self.steps += len(totals)
        for metric in self.norms.values():
            metric.update(totals[~overflow])
        self.non_finite.update(totals, overflow)
        self.overflows.update(overflow)

    def since_last_time(self) -> dict[str, float]:
        """Give the values, and begin anew; nothing where there was no step."""
        if not self.steps:
            return {}
        metrics = {**self.norms, "non_finite_share": self.non_finite, "overflows": self.overflows}
        values = {name: float(metric.compute()) for name, metric in metrics.items()}
        for metric in metrics.values():
            metric.reset()
        self.steps = 0
        return values
