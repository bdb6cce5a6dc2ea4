"""What happened to the total gradient norm over some steps: a spike between two logged steps is not lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from gradguard.detect import Block
from gradguard.lightning.clips import ClipTotals
from gradguard.metrics import GradNormLast, GradNormMax, GradNormMean, NonFiniteShare, OverflowCount, UpdateRatio

NAMES = (
    "grad_norm/total",
    "grad_norm/mean",
    "grad_norm/max",
    "update_ratio/mean",
    "non_finite_share",
    "overflows",
)


@final
class Totals:
    """GradGuard's metrics over the steps of one optimizer. All ranks see the same numbers."""

    def __init__(self) -> None:
        alone = {"sync_on_compute": False}  # they are equal on all ranks already
        self.norms = (GradNormLast(**alone), GradNormMean(**alone), GradNormMax(**alone))
        self.ratio, self.share, self.overflows = UpdateRatio(**alone), NonFiniteShare(**alone), OverflowCount(**alone)
        self.metrics = dict(zip(NAMES, (*self.norms, self.ratio, self.share, self.overflows), strict=True))
        for metric in self.metrics.values():
            metric.persistent(True)
        self.steps, self.clips = 0, ClipTotals()

    def take(self, block: Block) -> None:
        """Take in the steps of a block."""
        self.update(block.totals, block.overflow, block.samples.update_ratios)
        self.clips.update(block)

    def update(self, totals: Tensor, overflow: Tensor, ratios: Tensor) -> None:
        """Take in the totals of some steps, which of them a loss scaler skipped, and the ratios of the sampled ones."""
        self.steps += len(totals)
        for metric in self.norms:
            metric.update(totals[~overflow])
        self.share.update(totals, overflow)
        self.overflows.update(overflow)
        self.ratio.update(ratios)

    def so_far(self) -> dict[str, float]:
        """Give the values; nothing where there was no step, and no mean or maximum of nothing."""
        if not self.steps:
            return {}
        values = {name: float(metric.compute()) for name, metric in self.metrics.items()}
        known = {name: value for name, value in values.items() if value == value or name == NAMES[0]}
        return {**known, **self.clips.so_far()}

    def begin_anew(self) -> None:
        """Forget everything."""
        for metric in self.metrics.values():
            metric.reset()
        self.steps = 0
        self.clips.begin_anew()

    def state_dict(self) -> dict[str, Any]:
        """Give the sums so far."""
        metrics = {name: dict(metric.state_dict()) for name, metric in self.metrics.items()}
        return {"steps": self.steps, "clips": self.clips.state_dict(), **metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        self.steps = state["steps"]
        self.clips.load_state_dict(state.get("clips", {}))
        for name, metric in self.metrics.items():
            metric.load_state_dict(state[name])
        nothing = torch.zeros(0)
        self.update(nothing, nothing.bool(), nothing)  # torchmetrics does not know a loaded state from an empty one
