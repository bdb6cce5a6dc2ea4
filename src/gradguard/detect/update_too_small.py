"""Steps that are too small for the weights that they change."""

from __future__ import annotations

import math
from collections.abc import Set as AbstractSet
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.detect.base import AbstractDetector, PerParameter
from gradguard.detect.block import Block, matrices
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.recent_loss import WINDOW, RecentLoss, feeding
from gradguard.detect.state import saved
from gradguard.detect.symptom import Symptom

ALIKE = 0.02  # share by which changes differ that are the weight decay's
SMALL = 1e-3  # of a weight, more than which weight decay takes of it at no step
BEGINNING = 10  # steps after which weights should still be moving, where nothing is learnt
TIMES = 200  # the limit, where nothing is learnt


@final
class UpdateTooSmall(AbstractDetector):
    """A weight matrix gets gradients and has all the same not moved since the beginning, or since a few steps later.

    Rule: update norm / weight norm stayed below ``ratio`` at every sample so far, over at least ``patience`` samples
    and ``min_steps`` steps at a learning rate above zero, or at zero for all weights at once. Relative to its own past
    on purpose: a converged run or a schedule that ends at zero has tiny updates, too, but it moved before. Where the
    loss is where it began (not below 90 % of the first ten), the limit is ``TIMES`` as high, and the first 10 steps do
    not count: a scheduler of epochs that is called at each step stops a run after a few of them. Nor do steps that
    change all weights by the same small share of themselves, as nothing but weight decay does.

    What it can't see: a weight that stops moving later on.

    Args:
        ratio: limit, > 0.
        patience: samples, >= 1.
        min_steps: steps between the first and the last of them.
    """

    def __init__(self, ratio: float = 1e-7, *, patience: int = 5, min_steps: int = 90) -> None:
        if not ratio > 0 or patience < 1 or min_steps < 0:
            raise ValueError(
                f"UpdateTooSmall needs ratio > 0, patience >= 1 and min_steps >= 0, got {ratio=}, {patience=}, "
                f"{min_steps=}."
            )
        self.ratio, self.patience, self.min_steps = ratio, patience, min_steps
        self.optimizer = ""
        self.largest, self.late = PerParameter(0.0), PerParameter(0.0)  # of all samples, and of those after the first
        self.loss = RecentLoss()
        self.samples = PerParameter(0.0)
        self.first, self.last = PerParameter(math.nan), PerParameter(math.nan)
        self.reported: dict[str, _Standstill] = {}
        self.decays = False  # whether a step was weight decay alone

    def observe(self, block: Block) -> None:
        """Take in the sampled steps among the next ones."""
        layout, samples = block.layout, block.samples
        self.optimizer, names = layout.optimizer, layout.names
        is_weight = torch.zeros(len(names), dtype=torch.bool)
        is_weight[matrices(layout)] = True
        with_gradient = dict(zip(block.steps.tolist(), (block.grad_norms != 0) & ~block.missing, strict=True))
        statistics = (self.largest, self.late, self.samples, self.first, self.last)
        largest, late, count, first, last = (statistic.of(names) for statistic in statistics)
        hear_up_to = feeding(self.loss, block)
        for step, ratios, rates in zip(
            samples.steps.tolist(), samples.update_ratios, samples.learning_rates, strict=True
        ):
            meant_to_move = (rates > 0) | (rates[is_weight] == 0).all()  # one group at zero is a way to freeze it
            counts = is_weight & ratios.isfinite() & meant_to_move & with_gradient[step]
            largest = torch.where(counts, torch.maximum(largest, ratios), largest)
            if step > BEGINNING and _only_decay(ratios[counts]):
                self.decays = True
            elif step > BEGINNING:
                late = torch.where(counts, torch.maximum(late, ratios), late)
            count = count + counts
            first = torch.where(counts & first.isnan(), float(step), first)
            last = torch.where(counts, float(step), last)
            hear_up_to(step)
            moved, limit = (late, TIMES * self.ratio) if self._is_where_it_began() else (largest, self.ratio)
            still = (count >= self.patience) & (last - first >= self.min_steps) & (moved < limit)
            for i in still.nonzero().flatten().tolist():
                begin = int(first[i]) if largest[i] < limit else max(int(first[i]), BEGINNING + 1)
                self.reported[names[i]] = _Standstill(begin, int(last[i]), float(moved[i]), active=True)
            self._end({name for i, name in enumerate(names) if not still[i]} if self.reported else set())
        hear_up_to(math.inf)
        for statistic, values in zip(statistics, (largest, late, count, first, last), strict=True):
            statistic.values = values
        self._end(self.reported.keys() - set(names))

    def _is_where_it_began(self) -> bool:
        return self.loss.count >= WINDOW and self.loss.level >= self.loss.start - 0.1 * abs(self.loss.start)

    def _end(self, names: AbstractSet[str]) -> None:
        for name in self.reported.keys() & names:
            self.reported[name] = self.reported[name]._replace(active=False)

    def findings(self) -> tuple[Finding, ...]:
        """Say which weights stand still."""
        if not self.reported:
            return ()
        active = any(standstill.active for standstill in self.reported.values())
        ratios = {name: standstill.largest for name, standstill in self.reported.items()}
        last_step = max(standstill.last_step for standstill in self.reported.values())
        first_step = min(standstill.first_step for standstill in self.reported.values())
        since = f"after step {BEGINNING} and " if first_step > BEGINNING else ""
        what = "weight matrix" if len(ratios) == 1 else "weight matrices"
        finding = Finding(
            Symptom.UPDATE_TOO_SMALL,
            Severity.WARNING if active else Severity.INFO,
            tuple(ratios),
            self.optimizer,
            first_step,
            last_step,
            active,
            {"largest update/weight": max(ratios.values()), "by weight": ratios},
            f"{len(ratios)} {what} got gradients, but {since}until step {last_step} no step changed them by more than "
            f"{max(self.ratio, *ratios.values()):.0e} of their norm{', weight decay aside' if self.decays else ''}.",
        )
        return (finding,)


def _only_decay(ratios: Tensor) -> bool:
    """Whether all of three weights or more change by the same small share of themselves."""
    return len(ratios) >= 3 and float(ratios.max()) < SMALL and float(ratios.min()) >= (1 - ALIKE) * float(ratios.max())


@saved
class _Standstill(NamedTuple):
    """From which to which sample a weight did not move, and by how much it moved at most."""

    first_step: int
    last_step: int
    largest: float
    active: bool
