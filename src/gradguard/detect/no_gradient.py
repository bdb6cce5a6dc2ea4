"""Trainable parameters that never get a gradient."""

from __future__ import annotations

import math
from typing import final

import torch

from gradguard.detect.base import AbstractDetector, PerParameter
from gradguard.detect.block import Block, Role
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class NoGradient(AbstractDetector):
    """A trainable parameter's gradient was missing or exactly zero at every step since the optimizer knows it.

    Rule: ``patience`` steps on end from its first one. A single gradient ends it for good: a late start is no fault.
    While a parameter is frozen (``requires_grad=False``) nothing counts. Entries below 1e-23, whose squares underflow
    in float32, count as zero. Critical where no parameter at all has a gradient; info where only biases have none whose
    layers' weights have one, since a bias may cancel: that of a Wasserstein critic's last layer does.

    What it can't see: parameters that no optimizer holds, and single dead rows of a parameter that lives.

    Args:
        patience: steps without a gradient before it is said, >= 1.
    """

    def __init__(self, *, patience: int = 20) -> None:
        if patience < 1:
            raise ValueError(f"NoGradient needs patience >= 1, got {patience}.")
        self.patience = patience
        self.optimizer = ""
        self.without = PerParameter(0.0)  # steps so far without a gradient; NaN once there was one
        self.reported: dict[str, tuple[int, int]] = {}  # first step, last step without
        self.started: dict[str, int] = {}
        self.trainable: frozenset[str] = frozenset()
        self.beside: frozenset[str] = frozenset()  # biases of layers whose weights get a gradient

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer, names = block.layout.optimizer, block.layout.names
        without = self.without.of(names)
        judged = ~block.overflow
        if not judged.any():
            return
        steps = block.steps[judged]
        for name in names:
            self.started.setdefault(name, int(steps[0]))
        got_one = (block.grad_norms[judged] != 0) & ~block.missing[judged]
        ever = got_one.any(dim=0)
        before_first = torch.where(ever, got_one.to(torch.int64).argmax(dim=0), len(steps)) * block.trainable
        counts = without + before_first
        late = (counts >= self.patience) & ~counts.isnan() & block.trainable
        for i in late.nonzero().flatten().tolist():
            last = int(steps[int(before_first[i]) - 1]) if before_first[i] > 0 else self.reported[names[i]][1]
            self.reported[names[i]] = (self.started[names[i]], last)
        self.without.values = torch.where(ever, torch.nan, counts)
        self.trainable = frozenset(n for n, t in zip(names, block.trainable.tolist(), strict=True) if t)
        rows = list(zip(names, block.layout.layers, block.layout.roles, self.without.values.tolist(), strict=True))
        alive = {layer for _, layer, _, count in rows if math.isnan(count)}
        self.beside = frozenset(name for name, layer, role, _ in rows if role is Role.BIAS and layer in alive)

    def findings(self) -> tuple[Finding, ...]:
        """One finding for all that still have none, one for those that got one late."""
        got_none = dict(zip(self.without.names, (~self.without.values.isnan()).tolist(), strict=True))
        waiting = {name for name, none in got_none.items() if none and name in self.trainable}
        found = []
        for active in (True, False):
            spans = {name: span for name, span in self.reported.items() if (name in waiting) is active}
            if not spans:
                continue
            first, last = min(s for s, _ in spans.values()), max(s for _, s in spans.values())
            none_at_all = active and len(spans) == len(self.trainable)
            severity = Severity.CRITICAL if none_at_all else Severity.WARNING
            severity = Severity.INFO if self.beside.issuperset(spans) else severity
            what = "parameter has" if len(spans) == 1 else "parameters have"
            when = "so far" if active else "for a while"
            why = (
                "No parameter at all has a gradient: is there a zero_grad() between backward() and step()?"
                if none_at_all
                else f"{len(spans)} trainable {what} had no gradient {when} (none, or below what float32 can square): "
                "the optimizer cannot train what the loss does not reach."
            )
            found.append(
                Finding(
                    Symptom.NO_GRADIENT,
                    severity if active else Severity.INFO,
                    tuple(spans),
                    self.optimizer,
                    first,
                    last,
                    active,
                    {"parameters": f"{len(spans)} of {len(self.without.names)}"},
                    why,
                )
            )
        return tuple(found)
