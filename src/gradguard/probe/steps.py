"""The steps of one run through a loop: the gradients that came to their states, and what these sum up to.

Shape legend: T = watched steps, W = steps of the window, R = sequences (rows of a state), H = hidden.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gradguard.probe.lags import Lags

if TYPE_CHECKING:
    from gradguard.probe.looking import Look


class Step:
    """One watched step: the gradients that came to its states; of the states themselves no more than their shape.

    Attributes:
        t: its number.
        shape: leading dimensions of the states.
        found: for each state, the sum of the gradients that came so far; None for nothing.
        is_heard: whether any gradient can come.
        carries: [], where none can, whether the states are more than zeros, as before the first step.
    """

    def __init__(self, states: Sequence[Tensor], t: int, of: Pass) -> None:
        self.t, self.shape, self.device = t, tuple(states[0].shape[:-1]), states[0].device
        self.found: list[Tensor | None] = [None] * len(states)
        heard = [(i, state) for i, state in enumerate(states) if state.requires_grad and of.listens]
        self._handles = [state.register_hook(partial(self._take, of, i)) for i, state in heard]
        self.is_heard = bool(heard)
        self.carries = None if heard or not of.listens else torch.stack([s.detach().any() for s in states]).any()

    def _take(self, of: Pass, i: int, grad: Tensor | None) -> None:
        if grad is None or torch._C._functorch.is_legacy_batchedtensor(grad):  # is_grads_batched: of no one loss
            return
        # Kept as it is: of an alias, autograd would not know, and add to it in place.
        grad, before = grad.detach() if grad.requires_grad else grad, self.found[i]
        self.found[i] = grad if before is None else before + grad
        of.is_touched = True

    @property
    def is_touched(self) -> bool:
        """Whether a gradient came."""
        return any(grad is not None for grad in self.found)

    def close(self) -> None:
        """Hear no more."""
        for handle in self._handles:
            handle.remove()

    def norms(self, state: int, rows: int, device: torch.device) -> Tensor:
        """Norms of the gradient of a state by row, [R]; 0 for the rows that the step does not have."""
        precise = torch.float32 if device.type == "mps" else torch.float64
        found, grad = torch.zeros(rows, dtype=precise, device=device), self.found[state]
        if grad is None:
            return found
        grad = grad.abs() if grad.is_complex() else grad
        of_rows = torch.linalg.vector_norm(grad, dim=-1, dtype=precise).flatten().to(device)
        return torch.cat([of_rows, found[len(of_rows) :]])


class Pass:
    """One run through the loop.

    Attributes:
        steps: in their order.
        thread: that ran it.
        listens: whether it hears gradients.
        is_heard: whether any can come.
        is_touched: whether one came.
    """

    def __init__(self, *, listens: bool) -> None:
        self.steps: list[Step] = []
        self.thread = threading.get_ident()
        self.listens, self.is_heard, self.is_touched = listens, False, False

    def add(self, states: Sequence[Tensor], t: int, name: str) -> None:
        """Take the next step in.

        Raises:
            ValueError: its states are of another layout than those of the first step.
        """
        new = (len(states), tuple(states[0].shape[:-1]))
        old = (len(self.steps[0].found), self.steps[0].shape) if self.steps else new
        if (new[0], len(new[1]), new[1][1:]) != (old[0], len(old[1]), old[1][1:]):
            raise ValueError(
                f"watch_state needs the same states at each step, whose batch differs in its first dimension at most; "
                f"{name} has {new[0]} with a batch of {new[1]} at step {t} after {old[0]} with {old[1]} at step "
                f"{self.steps[0].t}. Give another loop another name."
            )
        self.steps.append(Step(states, t, self))
        self.is_heard |= self.steps[-1].is_heard

    def window(self) -> tuple[int, int]:
        """Where the last run of steps with gradients begins and ends: a step without one lets nothing through."""
        there = [step.is_touched for step in self.steps]
        end = len(there) - there[::-1].index(True)
        return next((k for k in range(end, 0, -1) if not there[k - 1]), 0), end

    @torch.no_grad()
    def look(self, name: str, *, loss_at_end: bool) -> Look:
        """Sum up on the device what came.

        Host sync: none. Mutates: nothing.
        """
        from gradguard.probe.looking import Look

        first, end = self.window()
        rows, device = max(math.prod(step.shape) for step in self.steps), self.steps[first].device
        norms = [torch.stack([s.norms(k, rows, device) for s in self.steps]) for k in range(len(self.steps[0].found))]
        lags = _lags_in([norms_TR[first:end] for norms_TR in norms])
        numbers = {
            "outside": torch.zeros_like(lags.outside) if loss_at_end else torch.ones_like(lags.outside),
            "sequences": lags.counts(),
            "length": lags.lengths.to(lags.outside.dtype).mean(),
            "total": lags.by_lag(norms[-1][first:end].flatten()),
            "gates": lags.outside.new_zeros(0, len(self.steps)),
            "cut": _cut(self.steps[first - 1] if first else None, device),
        }
        numbers |= {state: torch.linalg.vector_norm(of, dim=1) for state, of in zip("hc", norms, strict=False)}
        return Look(name, (), is_last=True, is_gated=False, keeps=None, numbers=numbers, start=self.steps[first].t)


def _cut(before: Step | None, device: torch.device) -> Tensor:
    """Whether the step before the window is more than the zeros that a loop begins with."""
    if before is not None and before.carries is not None:
        return before.carries.to(device)
    return torch.full((), before is not None, dtype=torch.bool, device=device)


def _lags_in(norms: Sequence[Tensor]) -> Lags:
    """Find the end of each sequence, the last step at which its gradient is not zero, from norms [W, R]."""
    touched = torch.stack([norms_WR != 0 for norms_WR in norms]).any(0)  # NaN is not zero
    running = torch.arange(len(touched), device=touched.device).unsqueeze(1).expand_as(touched)
    ends = torch.where(touched, running, -1).amax(0)
    lag = (ends - running).flatten()
    return Lags(len(touched), running.flatten(), lag, lag == 0, norms[0].new_zeros(()), ends + 1)
