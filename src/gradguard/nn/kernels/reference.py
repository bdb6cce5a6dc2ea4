"""The recurrence as its equations say it, with the gradients that autograd finds: slow, for every cell and device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor
from torch._C import DispatchKey

from gradguard.functional.recurrence import unroll
from gradguard.nn.kernels.base import AbstractKernel, Gradients, Layer, Outcome, shares_of_steps


def run(layer: Layer, seen: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Each state at every step, and after the last one: differentiable in whatever way torch knows."""
    recurrence, x, states, params, order, noise = layer
    shares, take = shares_of_steps(noise.zones, order), recurrence.begin(params, [] if seen is None else seen)

    def step(x: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        if noise.clip is not None:
            states = clamp_gradient(states[0], noise.clip), *states[1:]
        drop = {} if noise.drop_h is None else {"drop_h": noise.drop_h[: len(x)]}
        new = take(x, *states, **drop)
        triples = zip(new, states, next(shares), strict=True)
        return tuple(state if zone is None else torch.lerp(state, old, zone) for state, old, zone in triples)

    return unroll(step, order.in_time(x), states, reverse=order.reverse)


class ClampedGradient(torch.autograd.Function):
    """The identity, whose gradient is clamped entry by entry."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, bound: float) -> Tensor:
        """Give x."""
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep the bound."""
        ctx.bound = inputs[1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Clamp it."""
        return grad.clamp(-ctx.bound, ctx.bound), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> Tensor:
        """A tangent is left alone."""
        return tangent.view_as(tangent)


clamp_gradient: Callable[[Tensor, float], Tensor] = ClampedGradient.apply


@final
class Reference(AbstractKernel):
    """See the head of this file."""

    def forward(self, *, save: bool) -> Outcome:
        """Run all steps."""
        seen: list[Tensor] = []
        sequences, _ = run(self.layer, seen)
        last = self.layer.states[-1]
        shapes = self.layer.recurrence.extras(self.steps, last.shape[1])
        return Outcome(sequences, [], [torch.stack(seen) if seen else last.new_empty(shape) for shape in shapes])

    def saved(self) -> list[Tensor]:
        """Nothing."""
        return []

    def backward(
        self,
        outcome: Outcome,
        of_sequences: Sequence[Tensor | None],
        of_finals: Sequence[Tensor | None],
        needed: frozenset[str],
    ) -> Gradients:
        """Run it once more and ask autograd."""
        recurrence, x, states, params, order, noise = self.layer
        with _recording():
            leaves = [t.detach().requires_grad_() for t in (x, *states, *params.values())]
            now, of_params = leaves[1 : 1 + len(states)], leaves[1 + len(states) :]
            named = dict(zip(params, of_params, strict=True))
            sequences, finals = run(Layer(recurrence, leaves[0], tuple(now), named, order, noise))
            pairs = zip([*sequences, *finals], [*of_sequences, *of_finals], strict=True)
            given = [(value, grad) for value, grad in pairs if grad is not None]
            grads = torch.autograd.grad(
                [value for value, _ in given],
                leaves,
                [grad for _, grad in given],
                allow_unused=True,
                materialize_grads=True,
            )
        rest = dict(zip(params, grads[1 + len(states) :], strict=True))
        of_states = [grad.clone() for grad in grads[1 : 1 + len(states)]]  # without a step they are what came in
        return Gradients(grads[0], of_states, rest)


@contextmanager
def _recording() -> Iterator[None]:
    """Record for autograd, within a custom operator, too, where torch leaves it out."""
    include, keys = (
        torch._C._SetExcludeDispatchKeyGuard,
        (DispatchKey.AutogradFunctionality, DispatchKey.ADInplaceOrView),
    )
    with include(keys[0], False), include(keys[1], False), torch.enable_grad():
        yield
