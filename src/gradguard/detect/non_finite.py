"""NaN and Inf in the gradients."""

from __future__ import annotations

from dataclasses import replace
from typing import final

from gradguard.detect.base import AbstractDetector, Spell
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class NonFinite(AbstractDetector):
    """A gradient holds NaN or Inf: the optimizer writes it into the weights, and the run is lost.

    Rule: any step with a non-finite gradient norm, unless a loss scaler skips it. Such an fp16 overflow is routine, up
    to ``skips`` of them on end: then no scale helps, and the run stands still. Named are all bad parameters of the
    first bad step. NaN spreads from where it arises towards the input, so the last bad one in the order of the model is
    next to the cause. Over after ``patience`` finite steps.

    What it can't see: which operation made it; a finite gradient whose float32 square overflows looks like Inf until
    the guard measures exactly, from its next flush on.

    Args:
        patience: finite steps after which it no longer holds, >= 1.
        skips: steps that a loss scaler skips on end before it is said, >= 1. From its usual 65,536 a scale has been
            halved to nothing after 40.
    """

    def __init__(self, *, patience: int = 20, skips: int = 40) -> None:
        if patience < 1 or skips < 1:
            raise ValueError(f"NonFinite needs patience >= 1 and skips >= 1, got {patience=}, {skips=}.")
        self.patience, self.skips = patience, skips
        self.optimizer, self.kind = "", ""
        self.num_params = 0
        self.bad_at_first: tuple[str, ...] = ()
        self.bad = self.skipped = Spell(0, 0, active=False)
        self.bad_steps = self.finite_since = self.streak = 0

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        finite = block.grad_norms.isfinite()
        rows = zip(block.steps.tolist(), block.overflow.tolist(), finite.all(dim=1).tolist(), strict=True)
        for row, (step, overflow, is_finite) in enumerate(rows):
            self.streak = self.streak + 1 if overflow else 0
            if self.streak >= self.skips:
                self.skipped = Spell(self.skipped.first_step or step - self.streak + 1, step, active=True)
            if overflow:
                continue
            self.skipped = replace(self.skipped, active=False)
            if is_finite:
                self.finite_since += 1
                self.bad = replace(self.bad, active=self.bad.active and self.finite_since < self.patience)
                continue
            self.bad_steps, self.finite_since = self.bad_steps + 1, 0
            self.bad = Spell(self.bad.first_step or step, step, active=True)
            if not self.bad_at_first:
                at = (~finite[row]).nonzero().flatten().tolist()
                self.bad_at_first = tuple(block.layout.names[i] for i in at)
                self.num_params = len(block.layout.names)
                self.kind = "NaN" if bool(block.grad_norms[row].isnan().any()) else "Inf (or beyond float32)"

    def findings(self) -> tuple[Finding, ...]:
        """Name the first bad step and its parameters; or say that every step is skipped."""
        found = []
        if self.bad_at_first:
            evidence = {
                "kind": self.kind,
                "bad parameters at first": f"{len(self.bad_at_first)} of {self.num_params}",
                "bad steps": self.bad_steps,
            }
            found.append(self._finding(self.bad_at_first, self.bad, evidence, self._cause()))
        if self.skipped.first_step:
            length = self.skipped.last_step - self.skipped.first_step + 1
            why = "The loss scaler skips every step: at no scale are the gradients finite, and nothing is learnt."
            found.append(self._finding((), self.skipped, {"steps skipped": length}, why))
        return tuple(found)

    def _finding(self, where: tuple[str, ...], spell: Spell, evidence: dict[str, object], explanation: str) -> Finding:
        span = (spell.first_step, spell.last_step, spell.active)
        return Finding(Symptom.NON_FINITE, Severity.CRITICAL, where, self.optimizer, *span, evidence, explanation)

    def _cause(self) -> str:
        first, last = self.bad_at_first[0], self.bad_at_first[-1]
        if len(self.bad_at_first) == self.num_params > 1:
            return f"No gradient is finite, {first} the first: look at the loss, the inputs and the forward pass."
        if len(self.bad_at_first) == 1:
            return f"The gradient of {first} is not finite, all others are: what made it stands right behind it."
        return (
            f"The gradient of {first} is the first one that is not finite; {last} is the bad one nearest to the loss, "
            "where the cause is most likely."
        )
