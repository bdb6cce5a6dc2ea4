"""Recurrent cells that a loop calls step by step: their states are watched without a line in the loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from gradguard.functional import tensors_in
from gradguard.probe.hearing import Hook
from gradguard.probe.watch import StateWatch

if TYPE_CHECKING:
    from gradguard.probe.looking import Look


@final
class CellWatch:
    """Listens to cells from ``on()`` to ``off()``, each under its own name.

    A call goes on with a pass where the state that it takes comes out of the graph; where it takes none, or one without
    a history, another pass begins. What may be wrong with a state is no reason to stop a loop: that cell is looked at
    no more.
    """

    def __init__(self, cells: Mapping[str, nn.Module], *, loss_at_end: bool) -> None:
        self.cells, self.states = dict(cells), StateWatch(loss_at_end=loss_at_end)
        self._ears: list[_CellEar] = []

    def on(self) -> None:
        """Begin to listen."""
        self.off()
        self._ears = [_CellEar(self.states, name, cell) for name, cell in self.cells.items()]

    def off(self) -> None:
        """Listen no more, and let go of what was heard."""
        for ear in self._ears:
            ear.off()
        self._ears = []
        self.states.forget()

    def looks(self) -> list[Look]:
        """Sum up on the device what came to each cell that was called twice or more in a row. Host sync: none."""
        self.cells = {name: cell for name, cell in self.cells.items() if not self._is_refused(name)}
        return [one for one in self.states.looks() if len(one.numbers["total"]) > 1 and one.layer in self.cells]

    def _is_refused(self, name: str) -> bool:
        return any(ear.is_refused for ear in self._ears if ear.name == name)


@final
class _CellEar:
    def __init__(self, states: StateWatch, name: str, cell: nn.Module) -> None:
        self.states, self.name, self.cell, self.t, self.is_refused = states, name, cell, 0, False
        self._hook = Hook(self._after)
        self._handle = cell.register_forward_hook(self._hook, with_kwargs=True)

    def off(self) -> None:
        self._handle.remove()

    def _after(self, cell: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if cell is not self.cell or not torch.is_grad_enabled() or self.is_refused:
            return
        given = args[1] if len(args) > 1 else kwargs.get("hx")
        carried = any(state.grad_fn is not None for state in tensors_in(given))
        self.t = self.t + 1 if carried else 0
        try:
            self.states.see(tensors_in(result)[:2], self.t, self.name)
        except ValueError:  # of another layout than at the step before
            self.is_refused = True
