"""Cells with a forget gate, whose bias a user may choose."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from gradguard.arguments import number
from gradguard.nn.recurrence import AbstractRecurrence


@dataclass(frozen=True)
class AbstractForgettingRecurrence(AbstractRecurrence):
    """A cell, one of whose gates is f.

    Args:
        forget_bias: what all biases of a new forget gate add up to; None for torch's random ones.
    """

    forget_bias: float | None = field(default=1.0, metadata={"initial": True})

    def check_forget_bias(self, *, bias: bool) -> None:
        """Refuse what is no number, and one of its own where there are no biases.

        Raises:
            TypeError, ValueError: it is so.
        """
        if self.forget_bias is not None:
            number("A forget gate", "forget_bias", self.forget_bias)
        if not bias and self.forget_bias not in (None, 1.0):
            raise ValueError(f"forget_bias={self.forget_bias} needs bias=True: without biases there is none to set.")

    def fill_(self, name: str, param: Tensor, hidden_size: int) -> None:
        """Fill a new parameter; the whole forget bias goes into ``bias_ih``, so that the sum is exact."""
        super().fill_(name, param, hidden_size)
        if name in ("bias_ih", "bias_hh") and self.forget_bias is not None:
            start = self.gates.names.index("f") * hidden_size
            nn.init.constant_(param[start : start + hidden_size], self.forget_bias if name == "bias_ih" else 0.0)
