"""What a recurrent module tells whoever listens to it: what each layer saw, and what it gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from gradguard.nn.doors import run
from gradguard.nn.doors.call import Call
from gradguard.nn.kernels.base import Layer
from gradguard.nn.recurrence import AbstractRecurrence


class Pass(NamedTuple):
    """One pass over one layer in one direction.

    Attributes:
        number: of the layer and direction, in the order of ``h_n``.
        recurrence: the cell and its settings.
        x: the input, [N, I].
        states: before the first step, [B, S] each.
        params: parameters, and masks that were drawn for this pass.
        batch_sizes: of a packed sequence, on the host.
        reverse: whether the last step comes first.
        turned: whether each sequence came in turned round, its last step first.
        sequences: each state at every step, [N, S].
        finals: each state after the last step, [B, S].
    """

    number: int
    recurrence: AbstractRecurrence
    x: Tensor
    states: Sequence[Tensor]
    params: Mapping[str, Tensor]
    batch_sizes: Tensor | None
    reverse: bool
    turned: bool
    sequences: Sequence[Tensor] = ()
    finals: Sequence[Tensor] = ()

    def run(self) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
        """Make the pass: see :func:`gradguard.nn.doors.run`."""
        sizes = self.batch_sizes
        return run(self.recurrence, self.x, self.states, self.params, batch_sizes=sizes, reverse=self.reverse)

    def detached(self) -> Pass:
        """Give it without a history: the same memory."""
        params = {name: t.detach() for name, t in self.params.items()}
        x, states = self.x.detach(), [t.detach() for t in self.states]
        return self._replace(x=x, states=states, params=params, sequences=(), finals=())

    def layer(self) -> Layer:
        """Give what a kernel is given, without a history."""
        names, batch = tuple(self.params), self.states[0].shape[0]
        call = Call(self.recurrence, names, batch, self.batch_sizes, self.reverse)
        return call.layer([t.detach() for t in (self.x, *self.states, *self.params.values())])
