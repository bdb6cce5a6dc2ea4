"""What both doors pass on: a call, the kernel's two passes, and their differentiable twins.

What no kernel has code for (forward mode, second order, ``vmap`` over weights) is computed through the reference, which
torch can differentiate in every way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.nn.kernels import choose
from gradguard.nn.kernels.base import Layer, Noise, Outcome
from gradguard.nn.kernels.reference import run
from gradguard.nn.order import order_of
from gradguard.nn.recurrence import AbstractRecurrence

MASKS = ("drop_", "zone_")


class Call(NamedTuple):
    """What of a call is no tensor that has a gradient.

    Attributes:
        recurrence: the cell and its settings.
        names: of the parameters, and of masks that were drawn for this pass.
        batch: B.
        batch_sizes: of a packed sequence, on the host.
        reverse: whether the last step comes first.
    """

    recurrence: AbstractRecurrence
    names: tuple[str, ...]
    batch: int
    batch_sizes: Tensor | None
    reverse: bool

    @property
    def states(self) -> int:
        """How many states the cell has."""
        return len(self.recurrence.widths(1, 0))

    @property
    def inputs(self) -> int:
        """How many tensors it is given: x, the states, the parameters."""
        return 1 + self.states + len(self.names)

    @property
    def extras(self) -> int:
        """How many tensors it gives beside the states."""
        return len(self.recurrence.extras(1, 1))

    def steps(self, rows: int) -> int:
        """How many steps N rows are."""
        if self.batch_sizes is not None:
            return self.batch_sizes.shape[0]
        return rows // self.batch if self.batch else 0

    @property
    def drawn(self) -> bool:
        """Whether masks are among the tensors."""
        return any(name.startswith(MASKS) for name in self.names)

    def layer(self, tensors: Sequence[Tensor]) -> Layer:
        """Sort x, the states, the parameters and the masks into a layer."""
        x, states = tensors[0], tuple(tensors[1 : 1 + self.states])
        params = dict(zip(self.names, tensors[1 + self.states :], strict=True))
        masks = {name: params.pop(name) for name in self.names if name.startswith(MASKS)}
        zones = tuple(masks.get(f"zone_{i}", rate or None) for i, rate in enumerate(self.recurrence.rates))
        noise = Noise(masks.get("drop_h"), zones, self.recurrence.clip_grad_state)
        order = order_of(x.shape[0], self.batch, self.batch_sizes, reverse=self.reverse)
        return Layer(self.recurrence, x, states, params, order, noise)

    def reference(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Each state at every step, and each after the last: differentiable in every way."""
        with without_autocast(tensors[0].device.type):
            sequences, finals = run(self.layer(tensors))
        return *sequences, *finals


class Asked(NamedTuple):
    """Which gradients there are, and which are wanted.

    Attributes:
        given: for each state at every step, then for each after the last, whether it has a gradient.
        needed: for x, the states and the parameters, whether theirs is wanted.
    """

    given: tuple[bool, ...]
    needed: tuple[bool, ...]

    def names(self, call: Call) -> frozenset[str]:
        """What is wanted, by name."""
        wanted = zip(call.names, self.needed[1 + call.states :], strict=True)
        return frozenset([name for name, need in wanted if need] + ["x"] * self.needed[0])


def forward(call: Call, tensors: Sequence[Tensor], *, save: bool) -> list[Tensor]:
    """Run the chosen kernel: the states at every step, after the last, extras, and what is saved."""
    layer = call.layer(tensors)
    with without_autocast(layer.x.device.type):
        sequences, saved, extras = choose(call.recurrence.name, layer.x.device)(layer).forward(save=save)
    finals = [layer.order.finals(*pair) for pair in zip(sequences, layer.states, strict=True)]
    return [t.contiguous() for t in (*sequences, *finals, *extras, *saved)]


def backward(
    call: Call, asked: Asked, tensors: Sequence[Tensor], kept: Sequence[Tensor], grads: Sequence[Tensor]
) -> list[Tensor]:
    """Run the chosen kernel back: the gradients that are wanted."""
    layer, n, names = call.layer(tensors), call.states, asked.names(call)
    outcome = Outcome(list(kept[:n]), list(kept[n + call.extras :]))
    rest = iter(grads)
    every = [next(rest) if given else None for given in asked.given]
    with without_autocast(layer.x.device.type):
        kernel = choose(call.recurrence.name, layer.x.device)(layer)
        if not outcome.saved and kernel.saved():  # as of a graph that was captured where nothing wanted a gradient
            outcome = kernel.forward(save=True)
        found = kernel.backward(outcome, every[:n], every[n:], names)
    in_order = [found.x, *found.states, *(found.params.get(name) for name in call.names)]
    wanted = (grad for grad, need in zip(in_order, asked.needed, strict=True) if need)
    return [grad.contiguous() for grad in wanted if grad is not None]


def pulled_back(call: Call, asked: Asked) -> Callable[..., tuple[Tensor, ...]]:
    """What ``backward`` computes, as a differentiable function of x, states, parameters and gradients."""

    def gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
        inputs, grads = tensors[: call.inputs], tensors[call.inputs :]

        def outputs(*inputs: Tensor) -> tuple[Tensor, ...]:
            return tuple(t for t, given in zip(call.reference(*inputs), asked.given, strict=True) if given)

        with without_autocast(tensors[0].device.type):
            found = torch.func.vjp(outputs, *inputs)[1](grads)
        return tuple(grad for grad, need in zip(found, asked.needed, strict=True) if need)

    return gradients


def without_autocast(device: str) -> AbstractContextManager[object]:
    """Keep autocast out: the dtypes of a recurrence are settled before it gets here."""
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
