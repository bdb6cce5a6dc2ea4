"""A batch norm that is taken one step at a time, and back.

With d the gradient of x_hat, both of a step's b rows, and k the reciprocal deviation: of x it is
k (d - mean(d) - x_hat mean(d x_hat)) where mean and variance are the batch's own, and k d where they are constants:
given ones, and at a step of one row, which has no variance, those of the step before.

Shape legend: N = rows of all steps, b = rows of a step, T = steps, S = width of what is normed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradguard.functional.recurrence import moments
from gradguard.functional.recurrence.batch_norm_lstm import Moments, many_ranks, settled, sum_over_ranks


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
            own = moments(raw_bS, sync=self.sync)
            before = Moments(self.means[-1], self.variances[-1]) if self.means else None
            mean, var, found = settled(own, before)
            count = 0 if found is None else found
        elif count == 1 and self.means:
            mean, var = self.means[-1], self.variances[-1]
        else:
            mean, var = raw_bS.mean(0), None
        raw_bS.sub_(mean)
        if var is None:  # var_mean over the first dimension takes several times as long
            var = raw_bS.square().mean(0)
        scale = (var + self.eps).rsqrt_()
        for seen, value in ((self.means, mean), (self.variances, var), (self.scales, scale)):
            seen.append(value)
        self.counts.append(count)
        return raw_bS.mul_(scale)

    def rows(self, like: Tensor) -> Tensor:
        """How many rows each step's statistics are of, [T, 1]."""
        if self.counts and isinstance(self.counts[0], Tensor):
            return torch.stack([torch.as_tensor(count, device=like.device) for count in self.counts]).unsqueeze(1)
        if len(set(self.counts)) == 1:  # without a copy to the device
            return like.new_full((len(self.counts), 1), int(self.counts[0]))
        return like.new_tensor([float(count) for count in self.counts]).unsqueeze(1)


def shares(rows_T1: Tensor) -> Tensor:
    """One over the number of rows that a step's statistics are of, 0 where they are constants, [T, 1]."""
    own = rows_T1 > 1
    own[:1] = True  # the first step has none before it
    return own / rows_T1.clamp(min=1)


def stacked(rows: Sequence[Tensor], like_TS: Tensor) -> Tensor:
    """Put one row a step under another; of no step, none."""
    return torch.stack(list(rows)) if rows else like_TS


class StepBatchNormBack:
    """The backward pass of some steps.

    Args:
        hats: what was normalised, of each step, [b, S].
        scales: reciprocal deviations of each step, [T, S].
        shares: see :func:`shares`; None where all statistics were given.
        sync: whether these are those of all processes.
    """

    def __init__(self, hats: Sequence[Tensor], scales: Tensor, shares: Tensor | None, *, sync: bool) -> None:
        self.hats, self.scales, self.shares, self.sync = hats, scales, shares, sync and many_ranks()

    def __call__(self, step: int, d_bS: Tensor) -> Tensor:
        """Gradient of what a step normalised, from that of the outcome."""
        scale = self.scales[step]
        if self.shares is None:
            return d_bS * scale
        hat = self.hats[step]
        sums = torch.stack([d_bS.sum(0), (d_bS * hat).sum(0)])
        if self.sync:
            sums = sum_over_ranks(sums)
        sums = sums * self.shares[step]
        return (d_bS - sums[0]).addcmul_(hat, sums[1], value=-1).mul_(scale)
