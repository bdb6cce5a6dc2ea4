"""The gradient through time in a loop over cells that is the user's own: its states are watched, step by step.

Shape legend: H = hidden.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, final
from weakref import WeakSet

import torch
from torch import Tensor

from gradguard.detect import Profile
from gradguard.probe.hearing import MOST, is_alone
from gradguard.probe.steps import Pass

if TYPE_CHECKING:
    from gradguard.probe.looking import Look  # whose import registers operators

_active: WeakSet[StateWatch] = WeakSet()  # a guard that was never closed goes with its optimizer


def watch_state(state: Tensor | tuple[Tensor, ...] | list[Tensor], t: int, *, name: str = "state") -> None:
    r"""Watch the gradient of the state after one step of your own loop: of ``nn.LSTMCell``, ``nn.GRUCell``, a formula.

    .. math:: \frac{\partial L}{\partial h_t},\quad \frac{\partial L}{\partial c_t}

    Leave the line in the loop: it does nothing unless a :func:`watching` or a ``Guard`` that samples through time is at
    it. Then hooks note the gradients that come to the state, and :meth:`StateWatch.profiles` sums them up.

    Args:
        state: h, or ``(h, c)``, as the next step takes it over; each [..., H], with the same leading dimensions. A
            batch may shrink from step to step, with the longest sequences first.
        t: number of the step. It rises as the loop goes on, from any number, and lags count the watched steps; where
            it does not rise, another pass begins, of which the first counts that gets a gradient. Watch the state that
            the loop begins with as well, under the number before, and it is noticed where that is carried over from
            another window (not all zeros, without its history).
        name: of this loop, where there are several.

    Raises:
        TypeError, ValueError: while a watch is active: no such state, no whole number, another layout than before.

    The total gradient is all that can be seen here. What a loss gives to a step directly can't be told from what comes
    back to it from later ones: with a loss at every step, the profile shows where the loss is, **not** how far memory
    reaches, and a state that is detached between two losses is not noticed. Put the loss on the last step for that.
    Where a cell is one fused kernel (``nn.LSTMCell`` on a GPU), c gets what comes back from later steps alone. Inside
    of ``torch.compile`` and of ``torch.func`` transforms nothing is watched.

    Source: back-propagation through time, Pascanu et al. 2013, arXiv 1211.5063, section 2. Host sync: none. Mutates:
    nothing: the graph, the gradients and random numbers are as they were.

    >>> cell, readout = torch.nn.LSTMCell(4, 8), torch.nn.Linear(8, 1)
    >>> h = c = torch.zeros(3, 8)
    >>> with watching() as watched:
    ...     for t, x in enumerate(torch.randn(50, 3, 4)):
    ...         h, c = cell(x, (h, c))
    ...         watch_state((h, c), t)
    ...     readout(h).square().mean().backward()
    >>> (profile,) = watched.profiles()
    >>> profile.layer, len(profile.c), profile.horizon < 50
    ('state', 50, True)
    """
    if (
        torch.compiler.is_compiling()
        or not _active
        or is_alone()
        or torch._C._functorch.peek_interpreter_stack() is not None
    ):
        return
    states = _states_of(state, t, name)
    for watch in tuple(_active):
        watch.see(states, t, name)


@contextmanager
def watching() -> Iterator[StateWatch]:
    """Watch the states of one training step; ``backward()`` belongs inside.

    Host sync: none. Mutates: nothing.

    >>> h = torch.ones(2, requires_grad=True)
    >>> with watching() as watched:
    ...     for t in range(4):
    ...         h = 0.5 * h
    ...         watch_state(h, t)
    ...     h.sum().backward()
    >>> watched.profiles()[0].memory / 2**0.5
    tensor([1.0000, 0.5000, 0.2500, 0.1250], dtype=torch.float64)
    """
    watch = StateWatch()
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


@final
class StateWatch:
    """What :func:`watch_state` tells of from ``start()`` to ``stop()``. Several may be active at once.

    The gradients of the watched steps are held until the next ``start()``; where more than one comes to a state (from
    two losses, say), they are added up. Once a gradient has come, no further step is watched.

    Args:
        loss_at_end: whether the loss is on the last step alone: see :class:`gradguard.probe.ThroughTime`.
    """

    def __init__(self, *, loss_at_end: bool = False) -> None:
        self._passes: dict[str, list[Pass]] = {}
        self._loss_at_end = loss_at_end

    def start(self) -> None:
        """Watch from now on, and forget what was."""
        self.stop()
        self._passes = {}
        _active.add(self)

    def stop(self) -> None:
        """Watch no more; what was found stays."""
        _active.discard(self)
        for step in (step for passes in self._passes.values() for one in passes for step in one.steps):
            step.close()

    def forget(self) -> None:
        """Watch no more, and let go of what was found."""
        self.stop()
        self._passes = {}

    def looks(self) -> list[Look]:
        """Sum up on the device: a look for each name that got a gradient, a window of one step among them.

        Host sync: none. Mutates: nothing.
        """
        return [
            touched[0].look(name, loss_at_end=self._loss_at_end)
            for name, passes in tuple(self._passes.items())
            if (touched := [one for one in passes if one.is_touched])
        ]

    def profiles(self) -> tuple[Profile, ...]:
        """Sum up what was found.

        Returns:
            A :class:`Profile` for each name, in the order in which they were first watched: ``h`` and ``c`` by watched
            step; ``memory`` of c, where there is one, from each sequence's end, the last step at which its gradient is
            not zero; ``truncated`` where the gradient begins at a step before which there were others. Under a loss
            scaler all norms are scaled, as the gradients are.

        Raises:
            ValueError: nothing was watched; a name without a gradient, or with one at a single step.

        Host sync: a few for each name. Mutates: nothing.
        """
        from gradguard.probe.looking import profiles

        if not self._passes:
            raise ValueError(
                "A profile needs watch_state(state, t) in the loop over the steps, and nothing was watched. Is it "
                "called while the watch is active, and outside of torch.compile and torch.func?"
            )
        looks = self.looks()
        if missing := self._passes.keys() - {one.layer for one in looks}:
            raise ValueError(
                f"A profile needs a loss that depends on the watched states, but no gradient came to "
                f"{', '.join(sorted(missing))}. Is it detached, or is backward() called after the watch has stopped?"
            )
        read = [{key: value.cpu().double() for key, value in one.numbers.items()} for one in looks]
        for one, of in zip(looks, read, strict=True):
            if len(of["total"]) < 2:
                raise ValueError(
                    f"A profile needs a gradient at two steps or more; the window of {one.layer} has one step, "
                    f"{one.start}. Is the state detached at every step, or does t not rise in the order of the loop?"
                )
            if not of["total"].any():
                carrier = "c" if "c" in of else "h"
                raise ValueError(
                    f"A profile needs a gradient that is not zero, but that of {carrier} in {one.layer} is 0 at every "
                    "step. Is the loss multiplied by 0, or c not carried on?"
                )
        return tuple(profiles(looks, read))

    def see(self, states: list[Tensor], t: int, name: str) -> None:
        """Take in the states after a step: see :func:`watch_state`."""
        passes = self._passes.setdefault(name, [])
        if any(one.is_touched for one in passes):
            return
        mine = [one for one in passes if one.thread == threading.get_ident()]  # replicas run the same loop at once
        if not mine or t <= mine[-1].steps[-1].t:
            if mine and not mine[-1].is_heard:
                passes.remove(mine.pop())  # without gradients, as in a validation
            mine.append(Pass(listens=len(mine) < MOST))
            passes.append(mine[-1])
        mine[-1].add(states, t, name)


def _states_of(state: Any, t: Any, name: Any) -> list[Tensor]:
    states = list(state) if isinstance(state, tuple | list) else [state]
    wrong = [type(one).__name__ for one in states if not isinstance(one, Tensor)]
    if wrong or not states:
        raise TypeError(
            f"watch_state needs a tensor h or a tuple (h, c) of them, got {', '.join(wrong) or 'an empty one'}."
        )
    if not isinstance(t, int) or isinstance(t, bool):
        raise TypeError(f"watch_state needs the number of the step as an int, got {type(t).__name__}. Count the steps.")
    if not isinstance(name, str):
        raise TypeError(f"watch_state needs a str as the name of a loop, got {type(name).__name__}.")
    if len(states) > 2:
        raise ValueError(
            f"watch_state needs h or (h, c), got {len(states)} tensors. Watch each layer under a name of its own."
        )
    shapes = [tuple(one.shape) for one in states]
    if min(map(len, shapes)) == 0 or len({shape[:-1] for shape in shapes}) > 1:
        raise ValueError(
            f"watch_state needs states [..., H] with the same leading dimensions, got {' and '.join(map(str, shapes))}."
        )
    return states
