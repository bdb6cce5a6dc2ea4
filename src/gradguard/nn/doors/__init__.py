"""The two doors of a recurrence: an ``autograd.Function``, and custom operators where a graph is captured.

Only an operator is one node of a graph for all T; only a ``Function`` may say what ``vmap`` and forward mode mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradguard.nn.doors.call import Call
from gradguard.nn.doors.function import run as called
from gradguard.nn.doors.operator import captured
from gradguard.nn.recurrence import AbstractRecurrence


def run(
    recurrence: AbstractRecurrence,
    x_NI: Tensor,
    states: Sequence[Tensor],
    params: Mapping[str, Tensor],
    *,
    batch_sizes: Tensor | None = None,
    reverse: bool = False,
) -> tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]]:
    """Run one layer in one direction.

    Returns:
        Each state at every step, [N, S]; after the last, [B, S]; and what the recurrence gives beside.
    """
    call = Call(recurrence, tuple(params), states[0].shape[0], batch_sizes, reverse)
    tensors = x_NI, *states, *params.values()
    save = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    outputs = captured(call, tensors, save=save) if torch.compiler.is_compiling() else called(call, save, *tensors)
    n = len(states)
    return outputs[:n], outputs[n : 2 * n], outputs[2 * n : 2 * n + call.extras]
