"""Leaving a step out as if it had never been."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, final

from gradguard.arguments import whole_number
from gradguard.errors import SkipBudgetError

logger = logging.getLogger("gradguard")
OVERFLOWS = 40  # in a row: from its usual 65,536 a loss scale has been halved to nothing by then


@final
class Skip:
    """Skips a step whose gradients are not finite, truly: nothing moves, and it is said aloud.

    Gradients are set to None (zeros would still let AdamW move) or, where the optimizer takes it, ``found_inf`` is set,
    which needs no host read. Weights, the optimizer's state and its step count stay bit for bit as they were, and so do
    all buffers that the forward pass changed: those of the whole accumulation window are put back from a copy taken
    after the last good step. A learning-rate scheduler and a Trainer's ``global_step`` go on.

    Each skip is logged as a warning and recorded. More than ``budget`` in a row are an error: by then the run is
    broken, and skipping would only hide it. An fp16 overflow that a loss scaler skips is routine: buffers are put back,
    too, but it is not counted, unless there are more than forty (or ``budget``) in a row: no scale helps then.

    Args:
        budget: skips in a row that are put up with, >= 0.

    Raises:
        ValueError: ``budget`` is no integer >= 0.

    Host sync: one a step on a GPU, none where the optimizer takes ``found_inf`` (``fused=True``) or on a CPU.
    """

    def __init__(self, budget: int = 10) -> None:
        self.budget = whole_number("Skip", "budget", budget, least=0)

    def __repr__(self) -> str:
        return f"Skip(budget={self.budget})"


@final
class Skipping:
    """Counts the skips of one optimizer against the budget.

    Args:
        skip: the settings.
        optimizer: its name, for messages.

    Attributes:
        in_a_row: skips since the last good step.
        overflows: steps that a loss scaler has skipped since then.
        total: skips so far.
    """

    def __init__(self, skip: Skip, optimizer: str) -> None:
        self.skip, self.optimizer = skip, optimizer
        self.in_a_row = self.overflows = self.total = 0

    def good(self) -> None:
        """Note a step that was made."""
        self.in_a_row = self.overflows = 0

    def overflow(self, step: int) -> None:
        """Note a step that a loss scaler has skipped.

        Raises:
            SkipBudgetError: there were too many in a row.
        """
        self.overflows += 1
        if self.overflows > max(OVERFLOWS, self.skip.budget):
            raise SkipBudgetError(
                f"Step {step} of {self.optimizer} is number {self.overflows} in a row that the loss scaler skips: "
                "no scale makes the gradients finite. Weights and buffers are those of the last good step. Look at "
                "the inputs and the loss, or use bf16."
            )

    def bad(self, step: int, places: Sequence[str]) -> None:
        """Note a step that was skipped, and say so.

        Raises:
            SkipBudgetError: there were too many in a row.
        """
        self.in_a_row += 1
        self.total += 1
        where = f"{', '.join(places[:3])}{f' and {len(places) - 3} more' if len(places) > 3 else ''}"
        if self.in_a_row > self.skip.budget:
            raise SkipBudgetError(
                f"Step {step} of {self.optimizer} is number {self.in_a_row} in a row whose gradients are not finite "
                f"(in {where}), and Skip(budget={self.skip.budget}) puts up with {self.skip.budget}. Weights and "
                "buffers are those of the last good step. Look at the inputs and the loss, or lower the learning rate."
            )
        logger.warning(
            "Step %d of %s was skipped: the gradient is not finite in %s. That is %d of at most %d in a row.",
            step,
            self.optimizer,
            where,
            self.in_a_row,
            self.skip.budget,
        )

    def state_dict(self) -> dict[str, Any]:
        """Give the counts."""
        return {"in_a_row": self.in_a_row, "overflows": self.overflows, "total": self.total}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        self.in_a_row, self.overflows, self.total = state["in_a_row"], state["overflows"], state["total"]
