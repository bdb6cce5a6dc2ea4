"""The door while a graph is captured: two custom operators, each one node of the graph whatever T and B are.

``torch.ops.gradguard.recurrence`` and ``torch.ops.gradguard.recurrence_backward`` are registered when this is imported.
A graph that was saved needs ``import gradguard.nn`` before it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gradguard.nn.doors.call import Asked, Call, backward, forward
from gradguard.nn.kernels import choose
from gradguard.nn.recurrence import AbstractRecurrence, wide


@torch.library.custom_op("gradguard::recurrence", mutates_args=())
def _recurrence(
    spec: str,
    names: str,
    batch: int,
    batch_sizes: Tensor | None,
    reverse: bool,
    save: bool,
    tensors: Sequence[Tensor],
) -> list[Tensor]:
    _refuse_tangents(tensors)
    return forward(_call(spec, names, batch, batch_sizes, reverse), tensors, save=save)


@torch.library.custom_op("gradguard::recurrence_backward", mutates_args=())
def _recurrence_backward(
    spec: str,
    names: str,
    batch: int,
    batch_sizes: Tensor | None,
    reverse: bool,
    given: Sequence[bool],
    needed: Sequence[bool],
    tensors: Sequence[Tensor],
    kept: Sequence[Tensor],
    grads: Sequence[Tensor],
) -> list[Tensor]:
    _refuse_tangents([*tensors, *grads])
    call = _call(spec, names, batch, batch_sizes, reverse)
    return backward(call, Asked(tuple(given), tuple(needed)), tensors, kept, grads)


def captured(call: Call, tensors: Sequence[Tensor], *, save: bool) -> list[Tensor]:
    """Put the recurrence into the graph: each state at every step, each after the last, and what is saved."""
    spec, names = call.recurrence.spec, ",".join(call.names)
    found: list[Tensor] = _recurrence(spec, names, call.batch, call.batch_sizes, call.reverse, save, list(tensors))
    return found


def _refuse_tangents(tensors: Sequence[Tensor], *, readable: bool = True) -> None:
    """Raise within forward mode: an operator would drop tangents silently where no input wants a gradient."""
    if forward_ad._current_level < 0:
        return
    # Below torch.func.jvp forward gradients are switched off, and tangents are kept where they can't be seen from here.
    if not readable or not torch._C._is_fwd_grad_enabled() or any(map(_has_tangent, tensors)):
        raise NotImplementedError(
            "A recurrence in a captured graph has no forward mode: take it outside of torch.compile and torch.export."
        )


def _has_tangent(t: Tensor) -> bool:
    return forward_ad.unpack_dual(t).tangent is not None


def _call(spec: str, names: str, batch: int, batch_sizes: Tensor | None, reverse: bool) -> Call:
    return Call(AbstractRecurrence.from_spec(spec), tuple(names.split(",")), batch, batch_sizes, reverse)


@_recurrence.register_fake
def _(*args: Any) -> list[Tensor]:
    spec, names, batch, batch_sizes, _, save, tensors = args
    _refuse_tangents(tensors, readable=False)
    layer = _call(spec, names, 0, None, False).layer(tensors)  # shapes do not depend on the order
    rows, last = layer.x.shape[0], layer.states[-1]
    steps = _call(spec, names, batch, batch_sizes, False).steps(rows)
    sequences = [state.new_empty(rows, state.shape[1]) for state in layer.states]
    extras = [last.new_empty(shape, dtype=wide(last.dtype)) for shape in layer.recurrence.extras(steps, last.shape[1])]
    kernel = choose(layer.recurrence.name, layer.x.device)(layer)
    kernel.steps = steps
    return [*sequences, *map(_contiguous_like, layer.states), *extras, *(kernel.saved() if save else [])]


@_recurrence_backward.register_fake
def _(*args: Any) -> list[Tensor]:
    *_, needed, tensors, _, _ = args
    wanted = [t for t, need in zip(tensors, needed, strict=True) if need]
    return [_contiguous_like(t) for t in wanted]


def _contiguous_like(t: Tensor) -> Tensor:
    return torch.empty_like(t, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    *ctx.head, _, tensors = inputs
    ctx.states = len(AbstractRecurrence.from_spec(ctx.head[0]).widths(1, 0))
    ctx.inputs = len(tensors)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output[: ctx.states], *output[2 * ctx.states :])


def _backward(ctx: Any, grads: list[Tensor | None]) -> tuple[Any, ...]:
    tensors, kept = ctx.saved_tensors[: ctx.inputs], ctx.saved_tensors[ctx.inputs :]
    outer = grads[: 2 * ctx.states]
    given, needed = [grad is not None for grad in outer], list(ctx.needs_input_grad[-1])
    some = [grad for grad in outer if grad is not None]
    if not some:
        return *(None,) * (len(ctx.head) + 1), [None for _ in needed]
    found = iter(_recurrence_backward(*ctx.head, given, needed, list(tensors), list(kept), some))
    return *(None,) * (len(ctx.head) + 1), [next(found) if need else None for need in needed]


def _no_second(ctx: Any, grads: list[Tensor]) -> None:
    raise RuntimeError(
        "A recurrence in a captured graph has no second derivative: take it outside of torch.compile and torch.export."
    )


_recurrence.register_autograd(_backward, setup_context=_setup)
_recurrence_backward.register_autograd(_no_second)
