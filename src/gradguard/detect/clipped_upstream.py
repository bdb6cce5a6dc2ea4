"""Gradients that somebody clipped before they could be measured."""

from __future__ import annotations

import math
from collections import deque
from typing import final

import torch
from torch import Tensor

from gradguard.detect.base import AbstractDetector, Spell
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.recent_loss import WINDOW, RecentLoss
from gradguard.detect.symptom import Symptom

SMALL = 2e-4  # of the weights' norm: a step at which little is learnt


@final
class ClippedUpstream(AbstractDetector):
    """The total gradient norm piles up at one value: the loop clips before the optimizer's step is reached.

    Rule: among the last ``window`` steps, at least ``patience`` have a total within ``tolerance`` of the largest one
    (or within what the gradients' type can tell apart, where that is coarser),
    and from each such step to the next the shares of the parameters in the total moved by more than 1 %. A total that
    stands still because nothing changes does not count. Info, since clipping is no fault; a warning where it throttles:
    nineteen in twenty of them are there, over them a step moves the weights by less than 2e-4 of their norm, and the
    loss, of a hundred steps or more, is not below 90 % of where it began.

    What it can't see: clipping by value; a loop with one single parameter; steps of full-batch training that barely
    differ.

    Args:
        window: steps to look back over.
        patience: pinned steps among them.
        tolerance: relative distance from the largest total, in (0, 0.1).
    """

    def __init__(self, *, window: int = 50, patience: int = 8, tolerance: float = 1e-4) -> None:
        if not 1 < patience <= window or not 0 < tolerance < 0.1:
            raise ValueError(
                f"ClippedUpstream needs 1 < patience <= window and 0 < tolerance < 0.1, got {patience=}, {window=}, "
                f"{tolerance=}."
            )
        self.window, self.patience, self.tolerance = window, patience, tolerance
        self.totals: deque[float] = deque(maxlen=window)
        self.top = 0.0
        self.pinned: deque[int] = deque()
        self.shares = torch.zeros(0, device="cpu")
        self.moved: deque[float] = deque(maxlen=window)
        self.recent = RecentLoss()
        self.throttles = False
        self.optimizer = ""
        self.spell: Spell | None = None
        self.evidence: dict[str, object] = {}

    def observe(self, block: Block) -> None:
        """Take in the next steps; overflow steps and steps with a NaN or Inf are passed over."""
        self.optimizer = block.layout.optimizer
        judged = ~block.overflow & block.totals.isfinite() & (block.totals > 0)
        rows = zip(block.steps.tolist(), block.totals.tolist(), judged.tolist(), block.grad_norms, strict=True)
        moved = [math.nan] * len(judged) if block.moved is None else block.moved.tolist()
        losses = torch.where(block.has_loss, block.losses, torch.nan).tolist()
        for (step, total, counts, norms), distance, loss in zip(rows, moved, losses, strict=True):
            if counts:
                self.moved.append(distance)
                if math.isfinite(loss):
                    self.recent.observe(loss)
                self._observe_step(step, total, norms, max(self.tolerance, 1.5 * block.layout.resolution))

    def _observe_step(self, step: int, total: float, norms: Tensor, tolerance: float) -> None:
        self.totals.append(total)
        top = max(self.totals)
        if abs(top - self.top) > tolerance * top:
            self.top, self.shares = top, torch.zeros(0, device="cpu")
            self.pinned.clear()
        if total >= top * (1 - tolerance):
            shares = norms / total
            if shares.shape != self.shares.shape or float(torch.dist(shares, self.shares)) > 0.01:
                self.pinned.append(step)
                self.shares = shares
        while self.pinned and self.pinned[0] <= step - self.window:
            self.pinned.popleft()
        if len(self.pinned) >= self.patience:
            first = self.spell.first_step if self.spell else self.pinned[0]
            self.spell = Spell(first, self.pinned[-1], active=True)
            self.evidence = {"clipped to": top, "steps there": len(self.pinned), "of the last": len(self.totals)}
            self.throttles = self._is_throttled()
        elif self.spell:
            self.spell = Spell(self.spell.first_step, self.spell.last_step, active=False)

    def _is_throttled(self) -> bool:
        """Whether all is clipped, and so far that nothing much is learnt."""
        if len(self.pinned) < 0.95 * self.window or self.recent.count < WINDOW:
            return False
        is_small = math.fsum(self.moved) < SMALL * len(self.moved)
        return is_small and self.recent.level > self.recent.start - 0.1 * abs(self.recent.start)

    def findings(self) -> tuple[Finding, ...]:
        """Name the value at which the totals pile up."""
        if self.spell is None:
            return ()
        why = " That is so at nearly all of them, and at steps that small hardly anything is learnt."
        finding = Finding(
            Symptom.CLIPPED_UPSTREAM,
            Severity.WARNING if self.throttles and self.spell.active else Severity.INFO,
            (),
            self.optimizer,
            self.spell.first_step,
            self.spell.last_step,
            self.spell.active,
            self.evidence,
            f"The total gradient norm stands at {self.evidence['clipped to']:.6g} on many steps: the loop clips before "
            "the guard measures. No verdict is drawn from the total norm." + (why if self.throttles else ""),
        )
        return (finding,)
