"""NaN and Inf in the gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import final

import torch

from gradguard.detect.base import AbstractDetector, Spell
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class NonFinite(AbstractDetector):
    """A gradient holds NaN or Inf: the optimizer writes it into the weights, and the run is lost.

    Rule: any step with a non-finite gradient norm, unless a loss scaler skips it; a warning as long as the guard has
    skipped all of them (``recover=Skip()``), critical otherwise. An fp16 overflow that the scaler skips is routine
    where the recorded loss is finite, up to ``skips`` of them on end: then no scale helps, and the run stands still.
    The same of a recorded loss at ``losses`` steps whose gradients are all finite: a warning, since what is recorded is
    not what is minimised, or a part of it has no gradient. Named are all bad parameters of the first bad step. NaN
    spreads from where it arises towards the input, so the last bad one in the order of the model is next to the cause.
    Over after ``patience`` finite steps.

    What it can't see: which operation made it, for which there is ``probe.first_bad_module``; a finite gradient whose
    float32 square overflows looks like Inf until the guard measures exactly, from its next flush on.

    Args:
        patience: finite steps after which it no longer holds, >= 1.
        losses: steps with a bad loss and finite gradients before it is said, >= 1.
        skips: steps that a loss scaler skips on end before it is said, >= 1. From its usual 65,536 a scale has been
            halved to nothing after 40.
    """

    def __init__(self, *, patience: int = 20, skips: int = 40, losses: int = 3) -> None:
        if patience < 1 or skips < 1 or losses < 1:
            raise ValueError(f"NonFinite needs patience, skips and losses >= 1, got {patience=}, {skips=}, {losses=}.")
        self.patience, self.skips, self.losses = patience, skips, losses
        self.optimizer, self.kind = "", ""
        self.num_params = 0
        self.bad_at_first: tuple[str, ...] = ()
        self.bad = self.skipped = self.bad_loss = Spell(0, 0, active=False)
        self.bad_losses = 0  # at steps whose gradients were finite
        self.bad_steps = self.bad_and_made = self.finite_since = self.streak = self.longest = 0
        self.last_total = 0.0  # of a finite step before the first bad one

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        finite = block.grad_norms.isfinite()
        bad_loss = block.has_loss & ~block.losses.isfinite()
        flags = torch.stack([block.overflow, bad_loss, finite.all(dim=1), block.skipped], dim=1).tolist()
        for row, (step, flag) in enumerate(zip(block.steps.tolist(), flags, strict=True)):
            overflow, loss_is_bad, is_finite, skipped = flag
            self._observe_scaler(step, overflow)
            if overflow and not loss_is_bad:
                continue
            if is_finite and not overflow:
                self._observe_loss(step, loss_is_bad)
                self.finite_since += 1
                self.bad = replace(self.bad, active=self.bad.active and self.finite_since < self.patience)
                self.last_total = float(block.totals[row]) if not self.bad.first_step else self.last_total
                continue
            if not self.bad.first_step:
                names = block.layout.names
                self.num_params = len(names)
                self.bad_at_first = tuple(names[i] for i in (~finite[row]).nonzero().flatten().tolist() if not overflow)
                is_nan = bool((block.losses if overflow else block.grad_norms)[row].isnan().any())
                self.kind = "NaN" if is_nan else "Inf (or beyond float32)"
            self.bad_steps, self.finite_since = self.bad_steps + 1, 0
            self.bad_and_made += not skipped
            self.bad = Spell(self.bad.first_step or step, step, active=True)

    def _observe_loss(self, step: int, is_bad: bool) -> None:
        if is_bad:
            self.bad_losses += 1
            self.bad_loss = Spell(self.bad_loss.first_step or step, step, active=True)
        elif step - self.bad_loss.last_step >= self.patience:
            self.bad_loss = replace(self.bad_loss, active=False)

    def _observe_scaler(self, step: int, overflow: bool) -> None:
        self.streak = self.streak + 1 if overflow else 0
        self.longest = max(self.longest, self.streak)
        if self.streak >= self.skips:
            self.skipped = Spell(self.skipped.first_step or step - self.streak + 1, step, active=True)
        elif not overflow:
            self.skipped = replace(self.skipped, active=False)

    def findings(self) -> tuple[Finding, ...]:
        """Name the first bad step and its parameters; or say that every step is skipped."""
        found = []
        if self.bad.first_step:
            evidence: dict[str, object] = {
                "kind": self.kind,
                "bad parameters at first": f"{len(self.bad_at_first)} of {self.num_params}",
                "bad steps": self.bad_steps,
                "of these skipped": self.bad_steps - self.bad_and_made,
                "total norm before": self.last_total,
            }
            safe = not self.bad_and_made
            severity = Severity.WARNING if safe else Severity.CRITICAL
            untouched = " Such steps are skipped: the weights are untouched." if safe else ""
            found.append(self._finding(severity, self.bad_at_first, self.bad, evidence, self._cause() + untouched))
        if self.bad_losses >= self.losses:
            why = (
                f"The loss is NaN or Inf at {self.bad_losses} steps whose gradients are all finite: what is recorded "
                "is not what is minimised, or a part of it has no gradient there."
            )
            evidence = {"steps with such a loss": self.bad_losses}
            found.append(self._finding(Severity.WARNING, (), self.bad_loss, evidence, why))
        if self.skipped.first_step:
            why = "The loss scaler skips every step: at no scale are the gradients finite, and nothing is learnt."
            evidence = {"steps skipped on end": self.longest}
            found.append(self._finding(Severity.CRITICAL, (), self.skipped, evidence, why))
        return tuple(found)

    def _finding(
        self, severity: Severity, where: tuple[str, ...], spell: Spell, evidence: dict[str, object], explanation: str
    ) -> Finding:
        span = (spell.first_step, spell.last_step, spell.active)
        return Finding(Symptom.NON_FINITE, severity, where, self.optimizer, *span, evidence, explanation)

    def _cause(self) -> str:
        if not self.bad_at_first:
            return "The loss itself is not finite: no loss scale helps. Look at the inputs and the forward pass."
        first, last = self.bad_at_first[0], self.bad_at_first[-1]
        if len(self.bad_at_first) == self.num_params > 1:
            return f"No gradient is finite, {first} the first: look at the loss, the inputs and the forward pass."
        if len(self.bad_at_first) == 1:
            return f"The gradient of {first} is not finite, all others are: what made it stands right behind it."
        return (
            f"The gradient of {first} is the first one that is not finite; {last} is the bad one nearest to the loss, "
            "where the cause is most likely."
        )
