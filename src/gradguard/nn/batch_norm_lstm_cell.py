"""One step of the batch-normalised LSTM as a module."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from gradguard.arguments import whole_number
from gradguard.functional.recurrence.batch_norm_lstm import many_ranks
from gradguard.nn.batch_norm_lstm import BatchNormLSTMRecurrence, check_settings
from gradguard.nn.lstm import AbstractLSTMCell
from gradguard.nn.step_statistics import StepStatistics


@final
class BatchNormLSTMCell(AbstractLSTMCell):
    """One step of :class:`BatchNormLSTM`, which has to be told which one, for the statistics that go with it.

    Args:
        input_size: I.
        hidden_size: H.
        bias: whether the gates have biases, and the norm of c a shift.
        device: of the parameters.
        dtype: of the parameters.
        forget_bias: what the biases of the forget gate add up to at first; None for torch's random ones.
        max_steps: for how many time steps there are statistics.
        gain: of the three norms at first.
        momentum: weight of the latest batch in the statistics that evaluation uses; None for their mean.
        eps: added to the variances, > 0.
        sync: whether, in training, statistics are those of all processes' batches.

    Host sync: none; one in ``eval()``. Mutates: in training, its statistics.

    >>> import torch
    >>> cell, state = BatchNormLSTMCell(4, 8), None
    >>> for step, x in enumerate(torch.randn(5, 3, 4)):
    ...     state = cell(x, state, step=step)
    >>> state[0].shape
    torch.Size([3, 8])
    """

    recurrence: BatchNormLSTMRecurrence

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        forget_bias: float | None = 1.0,
        max_steps: int = 100,
        gain: float = 0.1,
        momentum: float | None = 0.1,
        eps: float = 1e-5,
        sync: bool = False,
    ) -> None:
        check_settings(max_steps, gain, momentum, sync)
        recurrence = BatchNormLSTMRecurrence(forget_bias, eps, gain=gain, sync=sync)
        super().__init__(recurrence, input_size, hidden_size, bias, device, dtype)
        self._in_training = replace(recurrence, training=True)
        self.statistics = StepStatistics(hidden_size, max_steps, momentum, device, dtype)

    def forward(self, input: Tensor, hx: Any = None, *, step: int | None = None) -> Any:
        """Take one step.

        Args:
            input: [B, I], or [I] without a batch.
            hx: the states before it, (h, c), [B, S] each; zeros if None.
            step: its number, from 0 on.

        Raises:
            TypeError: no step was given.
            ValueError, RuntimeError: as ``torch.nn.LSTMCell`` would; in training, a batch of one.
        """
        if step is None:
            raise TypeError("BatchNormLSTMCell needs step=, the number of the time step: each has its own statistics.")
        number = whole_number("BatchNormLSTMCell", "step", step, least=0)
        return self._advance(input, hx, partial(self._numbered, number))

    def reset_parameters(self) -> None:
        """Draw the weights anew, and forget the statistics."""
        super().reset_parameters()
        if hasattr(self, "statistics"):  # which are not there yet at first
            self.statistics.reset_parameters()

    def _numbered(self, number: int, x: Tensor, states: list[Tensor], params: dict[str, Tensor]) -> tuple[Tensor, ...]:
        if not self.training:
            return self.recurrence.step(x, *states, **params, **self.statistics.at(number, 1))
        if len(x) == 1 and not (self.recurrence.sync and many_ranks()):
            raise ValueError(f"BatchNormLSTMCell needs more than one row in a batch in training, got {len(x)}.")
        seen: list[Tensor] = []
        new = self._in_training.begin(params, seen)(x, *states)
        self.statistics.follow(number, torch.stack(seen))
        return new
