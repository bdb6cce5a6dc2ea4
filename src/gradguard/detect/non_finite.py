"""NaN and Inf in the gradients."""

from __future__ import annotations

from typing import final

from gradguard.detect.base import AbstractDetector
from gradguard.detect.block import Block
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


@final
class NonFinite(AbstractDetector):
    """A gradient holds NaN or Inf: the optimizer writes it into the weights, and the run is lost.

    Rule: any step with a non-finite gradient norm, unless a loss scaler skips it (an fp16 overflow is routine). Named
    are all bad parameters of the first such step. NaN spreads from where it arises towards the input, so the last bad
    one in the order of the model is next to the cause. Over after ``patience`` finite steps.

    What it can't see: which operation made it; a finite gradient whose float32 square overflows looks like Inf at the
    first such step (the guard measures exactly from its next flush on).

    Args:
        patience: finite steps after which it no longer holds, >= 1.
    """

    def __init__(self, *, patience: int = 20) -> None:
        if patience < 1:
            raise ValueError(f"NonFinite needs patience >= 1, got {patience}.")
        self.patience = patience
        self.optimizer = ""
        self.bad_at_first: tuple[str, ...] = ()
        self.kind = ""
        self.first_step = self.last_step = 0
        self.bad_steps = self.finite_since = 0

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        finite = block.grad_norms.isfinite()
        rows = finite.all(dim=1).tolist()
        for row, (step, overflow) in enumerate(zip(block.steps.tolist(), block.overflow.tolist(), strict=True)):
            if overflow:
                continue
            if rows[row]:
                self.finite_since += 1
                continue
            self.bad_steps, self.finite_since, self.last_step = self.bad_steps + 1, 0, step
            if not self.bad_at_first:
                bad = (~finite[row]).nonzero().flatten().tolist()
                self.bad_at_first = tuple(block.layout.names[i] for i in bad)
                self.kind = "NaN" if bool(block.grad_norms[row].isnan().any()) else "Inf (or beyond float32)"
                self.first_step = step

    def findings(self) -> tuple[Finding, ...]:
        """Name the first bad step and its parameters."""
        if not self.bad_at_first:
            return ()
        first, last = self.bad_at_first[0], self.bad_at_first[-1]
        finding = Finding(
            Symptom.NON_FINITE,
            Severity.CRITICAL,
            self.bad_at_first,
            self.optimizer,
            self.first_step,
            self.last_step,
            self.finite_since < self.patience,
            {"kind": self.kind, "bad parameters at first": len(self.bad_at_first), "bad steps": self.bad_steps},
            f"The gradient of {first} is the first one that is not finite; {last} is the bad one nearest to the loss, "
            "where the cause is most likely.",
        )
        return (finding,)
