"""A loop of a recurrence over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Step = Callable[..., tuple[Tensor, ...]]


def unroll(
    step: Step, inputs: Sequence[Tensor], states: Sequence[Tensor], *, reverse: bool = False
) -> tuple[list[Tensor], list[Tensor]]:
    """Loop over time; the batch may shrink from one step to the next, as in a packed sequence.

    Args:
        step: takes x, then the states, and gives the new states; the first is the output.
        inputs: x of each step, [B_t, I], in the order of time, with B_t never growing.
        states: before the first step, [B_0, *] each.
        reverse: the last step comes first; a sequence that is shorter starts late, from its own state.

    Returns:
        Each state at every step, all steps' rows under one another in the order of time, [sum of B_t, *]; and each
        state after the last step of its sequence, [B_0, *].

    Host sync: none. Mutates: nothing.

    >>> ones = torch.ones(2, 1), torch.ones(1, 1)  # two sequences, one of two steps and one of one
    >>> unroll(lambda x, h: (x + h,), ones, [torch.zeros(2, 1)])
    ([tensor([[1.],
            [1.],
            [2.]])], [tensor([[2.],
            [1.]])])
    """
    now = list(states)
    seen: list[list[Tensor]] = [[] for _ in now]
    for x in reversed(inputs) if reverse else inputs:
        rows = len(x)
        new = step(x, *(state[:rows] for state in now))
        for i, state in enumerate(new):
            seen[i].append(state)
            now[i] = state if rows == len(now[i]) else torch.cat([state, now[i][rows:]])
    in_time = [parts[::-1] if reverse else parts for parts in seen]
    return [torch.cat(parts) if parts else state[:0].clone() for parts, state in zip(in_time, states, strict=True)], now
