"""Calls of recurrent modules, as they are remembered of a training step: what went in, and the gradients that came.

Nothing is computed here and nothing is changed: references are held, and hooks note the gradients.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge
from torch.nn.utils.rnn import PackedSequence

from gradguard.functional import tensors_in, version


@final
class Incoming:
    """The gradients that come to some tensors, summed up where they come more than once.

    Args:
        tensors: nothing of them is kept but their hooks: the graph behind them goes when the loop lets go of it.
        edges: whether to keep where they are made, for one who is going to ask for their gradients.

    Attributes:
        edges: where they are made, whatever is written over them afterwards.
        found: for each tensor, what came so far; None for nothing.
    """

    def __init__(self, tensors: Sequence[Tensor], *, edges: bool = False) -> None:
        self.edges = [get_gradient_edge(t) for t in tensors if t.requires_grad] if edges else []
        self.found: list[Tensor | None] = [None] * len(tensors)
        self._handles = [t.register_hook(partial(self._take, i)) for i, t in enumerate(tensors) if t.requires_grad]

    def _take(self, i: int, grad: Tensor | None) -> None:
        if grad is None or torch._C._functorch.is_legacy_batchedtensor(grad):  # of a custom function; of many at once
            return
        grad = grad.detach() if grad.requires_grad else grad  # a view that autograd knows nothing of may be changed
        before = self.found[i]
        self.found[i] = grad if before is None else before + grad

    @property
    def touched(self) -> bool:
        """Whether anything came."""
        return any(grad is not None for grad in self.found)

    def close(self) -> None:
        """Hear no more."""
        for handle in self._handles:
            handle.remove()


class Call:
    """One call of a recurrent module.

    Attributes:
        module: that was called.
        given: tensors that it took, its weights among them, and how often each had been changed in place by then.
        states: states before the first step that have no history: zeros, or what was carried on without one.
        incoming: gradients of what it gave: of the output and the final states; of one of ours, for each pass, of its
            sequences and its final states.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.given: list[tuple[Tensor, int]] = []
        self.states: list[Tensor] = []
        self.incoming: list[Incoming] = []

    def note(self, tensors: Iterable[Tensor]) -> None:
        """Note how often they were changed."""
        self.given += [(t, version(t)) for t in tensors]

    @property
    def is_touched(self) -> bool:
        """Whether a gradient came to anything that it gave."""
        return any(one.touched for one in self.incoming)

    @property
    def is_as_it_was(self) -> bool:
        """Whether nothing that it took was changed since; what FSDP2 took back is gathered again."""
        return all(version(t) == before or is_freed(t) for t, before in self.given)


@final
class CallOfTorch(Call):
    """A call of ``nn.RNN``, ``nn.GRU`` or ``nn.LSTM``: what went in, what came out, and nothing of what was between.

    Attributes:
        input: as it was given.
        hx: states as they were given, or None.
        weights: by their names in the module.
        training: whether the module was.
        under_autocast: whether products were taken in a lower precision.
        generator: state of the CPU's random numbers before the call, where dropout between layers was drawn from it.
    """

    def __init__(
        self,
        module: Any,
        given: tuple[Any, ...],
        result: Any,
        generator: Tensor | None,
        *,
        weights: Mapping[str, Tensor] | None = None,
        edges: bool = False,
    ) -> None:
        super().__init__(module)
        made = tensors_in(result)
        self.states = [t.detach() for t in tensors_in(given[1]) if not t.requires_grad]
        self.incoming = [Incoming(made, edges=edges)] if made else []
        self.input, self.hx = detached(given[0]), detached(given[1])
        weights = weights or dict(zip(module._flat_weights_names, module._flat_weights, strict=True))
        self.weights = {name: weight.detach() for name, weight in weights.items()}
        self.note([*tensors_in(self.input), *tensors_in(self.hx), *self.weights.values()])
        self.training, self.generator = bool(module.training), generator
        device = tensors_in(self.input)[0].device.type
        self.under_autocast = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
        self._made = (made[0].detach(), version(made[0])) if made else None

    @property
    def output(self) -> Tensor | None:
        """What came out of the last layer, the data of a packed sequence; None where it is not as it came out."""
        return self._made[0] if self._made is not None and version(self._made[0]) == self._made[1] else None


@final
class CallOfOurs(Call):
    """A call of a module of ``gradguard.nn``, which tells of each layer's pass by itself.

    Attributes:
        passes: of its layers and directions, in the order of ``h_n``.
    """

    def __init__(self, module: Any, first: Any, *, edges: bool = False) -> None:
        super().__init__(module)
        self.passes: list[Any] = []
        self.edges = edges
        self.add(first)

    def add(self, one: Any) -> None:
        """Take the next pass in."""
        self.states += [t.detach() for t in one.states if not t.requires_grad]
        self.incoming.append(Incoming([*one.sequences, *one.finals], edges=self.edges))
        self.passes.append(one.detached())
        self.note((self.passes[-1].x, *self.passes[-1].states, *self.passes[-1].params.values()))


def is_freed(tensor: Tensor) -> bool:
    """Whether a sharded module has taken its memory back."""
    return not hasattr(tensor, "_local_tensor") and bool(tensor.numel()) and not tensor.untyped_storage().size()


def detached(value: Any) -> Any:
    """Give what a recurrent module takes without the graph behind it: the same memory, with its count of changes."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach())
    return tuple(map(detached, value)) if isinstance(value, list | tuple) else value
