"""The door while no graph is captured: an ``autograd.Function`` that knows ``vmap``, forward mode and second order.

Shape legend: N = rows of all steps, T = time, B = batch, V = entries of a vmap, S = width of a state or a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from gradguard.nn.doors.call import Asked, Call, backward, forward, pulled_back, without_autocast

Dims = tuple[int | None, ...]


class Run(Function):
    """The forward pass: each state at every step, each after the last, extras, and what is saved."""

    @staticmethod
    def forward(call: Call, save: bool, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the chosen kernel."""
        return tuple(forward(call, tensors, save=save))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep the inputs, the states at every step, and what the kernel saved."""
        call, _, *tensors = inputs
        saved = output[2 * call.states :]
        ctx.call, ctx.no_tangents = call, (None,) * len(saved)
        ctx.save_for_backward(*tensors, *output[: call.states], *saved)
        ctx.save_for_forward(*tensors)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        """Hand over to the second function, which has a derivative of its own."""
        call, kept = ctx.call, ctx.saved_tensors
        outer = [grad for grad in grads[: 2 * call.states] if grad is not None]
        asked = Asked(tuple(grad is not None for grad in grads[: 2 * call.states]), tuple(ctx.needs_input_grad[2:]))
        if not outer:
            return (None,) * len(ctx.needs_input_grad)
        if any(map(torch._C._functorch.is_legacy_batchedtensor, outer)):  # is_grads_batched asks no vmap of ours
            found = iter(pulled_back(call, asked)(*kept[: call.inputs], *outer))
        else:
            found = iter(run_back(call, asked, *kept, *outer))
        return None, None, *(next(found) if need else None for need in asked.needed)

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Push tangents through the reference."""
        return *tangent(ctx.call.reference, ctx.saved_tensors, tangents[2:]), *ctx.no_tangents

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Call, save: bool, *tensors: Tensor) -> tuple[Any, Any]:
        """Make V batches of B one batch of V * B; or, if weights differ, run the reference."""
        save = save or torch.is_grad_enabled()  # which of them wants a gradient can't be seen from above
        dims, n = in_dims[2:], call.states
        if call.extras:
            raise NotImplementedError(
                f"vmap can't tell which of its entries the statistics of a {call.recurrence.name} are to come from: "
                "call eval() first, or vmap a function that does not train."
            )
        if call.batch_sizes is not None or call.drawn or any(dim is not None for dim in dims[1 + n :]):
            outputs = torch.vmap(call.reference, dims, randomness="error")(*tensors)
            return outputs, (0,) * len(outputs)
        fold = Fold(info.batch_size, call.batch)
        inputs = fold.rows(tensors[0], dims[0]), *map(fold.batch, tensors[1 : 1 + n], dims[1 : 1 + n])
        outputs = run(fold.call(call), save, *inputs, *tensors[1 + n :])
        back = [fold.state if n <= i < 2 * n else fold.unfold for i in range(2 * n)]
        states = tuple(f(t) for f, t in zip(back, outputs[: 2 * n], strict=True))
        saved = outputs[2 * n :]  # which the backward pass of a vmap has no use for
        return (*states, *saved), (0,) * len(states) + (None,) * len(saved)


class RunBack(Function):
    """The backward pass: the gradients that are wanted, of x, the states and the parameters."""

    @staticmethod
    def forward(call: Call, asked: Asked, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the chosen kernel back."""
        n = len(tensors) - sum(asked.given)
        inputs, kept, grads = tensors[: call.inputs], tensors[call.inputs : n], tensors[n:]
        return tuple(backward(call, asked, inputs, kept, grads))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Keep what the result is a function of: the inputs of the forward pass, and the gradients."""
        call, asked, *tensors = inputs
        n = len(tensors) - sum(asked.given)
        ctx.call, ctx.asked, ctx.between = call, asked, n - call.inputs
        ctx.save_for_backward(*tensors[: call.inputs], *tensors[n:])
        ctx.save_for_forward(*tensors[: call.inputs], *tensors[n:])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate the reference's own backward pass."""
        n, tensors = ctx.call.inputs, ctx.saved_tensors
        with without_autocast(tensors[0].device.type):
            found = torch.func.vjp(pulled_back(ctx.call, ctx.asked), *tensors)[1](grads)
        return None, None, *found[:n], *(None,) * ctx.between, *found[n:]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Push tangents through the reference's backward pass."""
        n = ctx.call.inputs
        outer = *tangents[2 : 2 + n], *tangents[2 + n + ctx.between :]
        return tangent(pulled_back(ctx.call, ctx.asked), ctx.saved_tensors, outer)

    @staticmethod
    def vmap(info: Any, in_dims: Dims, call: Call, asked: Asked, *tensors: Tensor) -> tuple[Any, Any]:
        """Run the reference."""
        n = len(tensors) - sum(asked.given)
        dims = in_dims[2:]
        inputs, of_inputs = (*tensors[: call.inputs], *tensors[n:]), (*dims[: call.inputs], *dims[n:])
        outputs = torch.vmap(pulled_back(call, asked), of_inputs, randomness="error")(*inputs)
        return outputs, (0,) * len(outputs)


run: Callable[..., tuple[Tensor, ...]] = Run.apply
run_back: Callable[..., tuple[Tensor, ...]] = RunBack.apply


class Fold:
    """V batches of B as one of V * B."""

    def __init__(self, entries: int, batch: int) -> None:
        self.entries, self.size = entries, batch

    def call(self, call: Call) -> Call:
        """The call with that batch."""
        return call._replace(batch=self.entries * self.size)

    def rows(self, x: Tensor, dim: int | None) -> Tensor:
        """[T * B, S] per entry becomes [T * V * B, S]."""
        x = self._first(x, dim)
        steps = x.shape[1] // self.size if self.size else 0
        return x.reshape(self.entries, steps, self.size, x.shape[2]).transpose(0, 1).flatten(0, 2)

    def batch(self, state: Tensor, dim: int | None) -> Tensor:
        """[B, S] per entry becomes [V * B, S]."""
        first: Tensor = self._first(state, dim)
        return first.flatten(0, 1)

    def unfold(self, sequence: Tensor) -> Tensor:
        """[T * V * B, S] becomes [T * B, S] per entry."""
        steps = sequence.shape[0] // (self.entries * self.size) if self.size else 0
        return sequence.view(steps, self.entries, self.size, sequence.shape[1]).transpose(0, 1).flatten(1, 2)

    def state(self, state: Tensor) -> Tensor:
        """[V * B, S] becomes [B, S] per entry."""
        return state.view(self.entries, self.size, state.shape[1])

    def _first(self, t: Tensor, dim: int | None) -> Tensor:
        return t.expand(self.entries, *t.shape) if dim is None else t.movedim(dim, 0)


def tangent(
    function: Callable[..., tuple[Tensor, ...]], primals: Sequence[Tensor], tangents: Sequence[Tensor | None]
) -> tuple[Tensor, ...]:
    """Push tangents through a function.

    A product with the Jacobian is the derivative of one with its transpose: forward mode itself can't be nested.
    """
    levels = torch._C._functorch.get_interpreter_stack() or []
    if [level.key() for level in levels].count(torch._C._functorch.TransformType.Jvp) > 1:
        raise NotImplementedError(
            "Forward mode over forward mode loses the outer tangents of a recurrence. Take jacfwd(jacrev(f)) or "
            "jacrev(jacfwd(f))."
        )
    every = tuple(torch.zeros_like(p) if t is None else t for p, t in zip(primals, tangents, strict=True))
    with without_autocast(primals[0].device.type):
        forward: Any = torch.func.vjp(function, *primals)
        back: Any = torch.func.vjp(forward[1], tuple(map(torch.zeros_like, forward[0])))
        return tuple(back[1](every)[0])
