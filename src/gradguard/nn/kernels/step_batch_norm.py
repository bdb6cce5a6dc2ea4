"""A batch norm that is taken one step at a time, and back.

With d the gradient of x_hat, both of a step's b rows, and k the reciprocal deviation: of x it is
k (d - mean(d) - x_hat mean(d x_hat)) where mean and variance are the batch's own, and k d where they were given.

Shape legend: N = rows of all steps, b = rows of a step, T = steps, S = width of what is normed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradguard.functional.recurrence import moments
from gradguard.functional.recurrence.batch_norm_lstm import many_ranks, sum_over_ranks


class StepBatchNorm:
    """The forward pass.

    Args:
        given: means and variances of all steps, [T, S] each; None to take the batch's.
        eps: added to the variance.
        sync: whether the batch is that of all processes.
    """

    def __init__(self, given: tuple[Tensor, Tensor] | None, eps: float, *, sync: bool) -> None:
        self.given, self.eps, self.sync = given, eps, sync and many_ranks()
        self.means: list[Tensor] = []
        self.variances: list[Tensor] = []
        self.scales: list[Tensor] = []
        self.counts: list[Tensor | int] = []

    def normalise_(self, raw_bS: Tensor) -> Tensor:
        """Normalise the rows of the next step."""
        count: Tensor | int = len(raw_bS)
        if self.given is not None:
            number = len(self.scales)
            mean, var = self.given[0][number], self.given[1][number]
        elif self.sync or not count:
            mean, var, found = moments(raw_bS, sync=self.sync)
            count = 0 if found is None else found
        else:
            var, mean = torch.var_mean(raw_bS, 0, correction=0)
        scale = (var + self.eps).rsqrt_()
        for seen, value in ((self.means, mean), (self.variances, var), (self.scales, scale)):
            seen.append(value)
        self.counts.append(count)
        return raw_bS.sub_(mean).mul_(scale)


def stacked(rows: Sequence[Tensor], like_TS: Tensor) -> Tensor:
    """Put one row a step under another; of no step, none."""
    return torch.stack(list(rows)) if rows else like_TS


class StepBatchNormBack:
    """The backward pass of some steps.

    Args:
        hats: what was normalised, of each step, [b, S].
        scales: reciprocal deviations of each step, [T, S].
        counts: how many rows each step's statistics are of, [T, 1]; None where they were given.
        sync: whether these are those of all processes.
    """

    def __init__(self, hats: Sequence[Tensor], scales: Tensor, counts: Tensor | None, *, sync: bool) -> None:
        self.hats, self.scales, self.counts, self.sync = hats, scales, counts, sync and many_ranks()

    def __call__(self, step: int, d_bS: Tensor) -> Tensor:
        """Gradient of what a step normalised, from that of the outcome."""
        scale = self.scales[step]
        if self.counts is None:
            return d_bS * scale
        hat = self.hats[step]
        sums = torch.stack([d_bS.sum(0), (d_bS * hat).sum(0)])
        if self.sync:
            sums = sum_over_ranks(sums)
        sums = sums / self.counts[step].clamp(min=1)
        return (d_bS - sums[0]).addcmul_(hat, sums[1], value=-1).mul_(scale)
