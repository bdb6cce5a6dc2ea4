"""The frame of all cells: one step of a recurrence as a module, with the contract of ``torch.nn.LSTMCell``.

Shape legend: B = batch, I = input, S = width of a state.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.nn import checks
from gradguard.nn.recurrence import AbstractRecurrence, wide


class AbstractCell(nn.Module):
    """One step of a recurrence. Parameters are called as the recurrence names them."""

    def __init__(
        self,
        recurrence: AbstractRecurrence,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        checks.sizes(type(self).__name__, input_size=input_size, hidden_size=hidden_size)
        checks.flags(type(self).__name__, bias=bias)
        self.recurrence, self.input_size, self.hidden_size, self.bias = recurrence, input_size, hidden_size, bias
        self._widths = recurrence.widths(hidden_size, 0)
        shapes = recurrence.shapes(input_size, hidden_size, 0, bias=bias)
        for name, shape in recurrence.shapes(input_size, hidden_size, 0, bias=True).items():
            param = nn.Parameter(torch.empty(shape, device=device, dtype=dtype)) if name in shapes else None
            self.register_parameter(name, param)
        self._names = tuple(shapes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as ``torch.nn.LSTMCell`` does; gains become 1."""
        for name in self._names:
            self.recurrence.fill_(name, getattr(self, name), self.hidden_size)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """Take one step.

        Args:
            input: [B, I], or [I] without a batch.
            hx: the states before it, [B, S] each ([S] without a batch); zeros if None.

        Returns:
            The states after it, in the form of ``hx``.

        Raises:
            ValueError, RuntimeError: as ``torch.nn.LSTMCell`` would.
        """
        return self._advance(input, hx, self._step)

    def _advance(self, input: Tensor, hx: Any, step: Callable[..., tuple[Tensor, ...]]) -> Any:
        """Take a step in whatever form states and input come."""
        checks.step(self, input, hx)
        params = {name: getattr(self, name) for name in self._names}
        batched = input.dim() == 2
        x = input if batched else input.unsqueeze(0)
        if hx is None:
            given = [x.new_zeros(x.shape[0], width) for width in self._widths]
        else:
            given = list(hx) if len(self._widths) > 1 else [hx]
            given = given if batched else [state.unsqueeze(0) for state in given]
        params = self.recurrence.effective(params)
        dtypes = [state.dtype for state in given]
        states = [given[0], *(state.to(wide(state.dtype)) for state in given[1:])]
        new = [s.to(dtype) for s, dtype in zip(step(x, states, params), dtypes, strict=True)]
        new = new if batched else [state.squeeze(0) for state in new]
        return tuple(new) if len(new) > 1 else new[0]

    def _step(self, x: Tensor, states: list[Tensor], params: dict[str, Tensor]) -> tuple[Tensor, ...]:
        """Take the step itself."""
        return self.recurrence.step(x, *states, **params)

    def extra_repr(self) -> str:
        """Write the arguments that are not the default."""
        parts = [str(self.input_size), str(self.hidden_size)] + ["bias=False"] * (not self.bias)
        return ", ".join(parts + self.recurrence.described())
