"""Listening to the layers of a model for one step: how large their outputs are, and which units do nothing.

Every number is made on the device, when a layer is called or a gradient comes to its output. Nothing is held, neither a
tensor of the model nor its graph, but for a copy of some entries of the last output; and nothing is changed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

from gradguard.errors import GradGuardWarning
from gradguard.functional import tensors_in
from gradguard.probe.fast_path import FastPaths
from gradguard.probe.layer_ears import LayerEar, ModelEar, is_backward
from gradguard.probe.layers import axis_of, is_compiled, is_embedding, is_norm
from gradguard.probe.seen import Kept, Seen, SignalSum, UnitSum, is_plain, packed
from gradguard.probe.slopes import Slope, saved, slope_of_state
from gradguard.probe.trail import Found, Made, Trail

CALLS = 16  # of a layer in a step, of which each is looked at; of later ones the 32nd, 64th and so on are


@final
class ActivationWatch:
    """Listens from ``on()`` to ``off()``.

    Layers that train are listened to, where a gradient may come to what they make: nothing in ``eval()`` or under
    ``no_grad``, of compiled graphs and of transforms of ``torch.func``. Whatever goes wrong in a look is said once, and
    that layer, or where it is about memory or more than a layer the whole model, is not looked at any more.

    Args:
        everything: whether layers in ``eval()`` count, too, and those to whose output no gradient may come; what goes
            wrong is kept then, in ``error``.
        edges: where to note the outputs' places in the graph, for who wants to have gradients by them.
    """

    def __init__(self, *, everything: bool = False, edges: list[Any] | None = None) -> None:
        self.everything, self.edges, self.is_on = everything, edges, False
        self.error: Exception | None = None
        self._ears: list[LayerEar | ModelEar] = []
        self._paths: FastPaths | None = None
        self.dropped: set[str] = set()  # layers of which a look went wrong
        self._begin()

    def _begin(self) -> None:
        self.trail, self.is_interrupted = Trail(), False
        self._kept: Kept | None = None
        self.signals: dict[str, SignalSum] = {}
        self.units: dict[tuple[str, str, int], UnitSum] = {}
        self.order: dict[str, int] = {}
        self.calls: dict[str, int] = {}
        self.forward: set[str] = set()  # layers that were called outside of a backward pass

    def on(self, layers: Iterable[tuple[str, nn.Module]], models: Iterable[nn.Module] = ()) -> None:
        """Listen to these layers from now on, which are part of those models."""
        self.off()
        if self.error is not None:
            return
        self._begin()
        ears, models = [LayerEar(self, name, layer) for name, layer in layers], list(models)
        self._paths, self.is_on = FastPaths(models, {id(ear.layer): ear for ear in ears}), True
        heads = [ModelEar(self, model) for model in _owner(models, [ear.layer for ear in ears])]
        self._ears = [*ears, *heads]
        for ear in ears:
            if not self._paths.holds(ear.layer):
                ear.on()
        for head in heads:
            head.on()
        self._paths.on()

    def off(self) -> None:
        """Listen no more, and let go of what was heard."""
        self.is_on = False
        if self._paths is not None:
            self._paths.off()
        for ear in self._ears:
            ear.off()
        self._ears, self._paths = [], None
        self._close()

    def _close(self) -> None:
        for signal in self.signals.values():
            signal.is_over = True
        if self._kept is not None:
            self._kept.drop()
        self._begin()

    def interrupt(self) -> None:
        """Forget what was heard as soon as it is heard anew: it was for another optimizer's step."""
        self.is_interrupted = bool(self.calls)

    def collect(self, scale: Tensor | None = None) -> Seen | None:
        """Give what was seen, gradients divided by the loss's scale, and listen no more. Host sync: none.

        Where no call was heard, the hooks stay, and do nothing: they are part of a compiled graph, of which another one
        would have to be made without them, or with others. ``again()`` listens with them.
        """
        seen = self.safely(self._pack, scale) if self.calls and self.error is None else None
        self.is_on = False
        if self.calls:
            self.off()
        return seen

    def again(self) -> bool:
        """Listen once more with the hooks that have stayed; say whether there are any."""
        self.is_on = bool(self._ears)
        return self.is_on

    @property
    def is_unheard(self) -> bool:
        """Whether hooks stay since none of them was called."""
        return bool(self._ears) and not self.is_on

    def _pack(self, scale: Tensor | None) -> Seen:
        in_order = sorted(self.units.items(), key=lambda item: self.order[item[0][0]])
        whole = [(layer, one) for (layer, *_), one in in_order]
        return packed(self.signals, whole, scale)

    def called(self, name: str) -> bool:
        """Count a call that begins; say whether it is looked at."""
        if self.is_interrupted and name in self.calls:
            self._close()
        self.calls[name] = self.calls.get(name, 0) + 1
        if not is_backward():
            self.forward.add(name)
        return self._is_looked_at(name)

    def _is_looked_at(self, name: str) -> bool:
        number = self.calls.get(name, 0)
        return number <= CALLS or number & (number - 1) == 0

    def took(self, name: str, taken: Any) -> None:
        """Look at the activations that a layer takes, but for what is fed back: an output that is encoded again."""
        at = self.order.get(name, len(self.order))
        for tensor in tensors_in(taken):
            if tensor.requires_grad and is_plain(tensor):
                for found in self.trail.behind(tensor):
                    if self.order.get(found.made.layer, 0) <= at:
                        self._add_units(found, tensor)

    def gave(self, result: Any) -> None:
        """Look at the activations between the last layers and what the model gives."""
        for tensor in tensors_in(result):
            if tensor.requires_grad and is_plain(tensor):
                for found in self.trail.behind(tensor):
                    self._add_units(found, tensor, is_output=True)

    def _add_units(self, found: Found, tensor: Tensor, *, is_output: bool = False) -> None:
        values = saved(found.node, found.slope.field)
        if values is None and found.slope.field == "result" and found.node is tensor.grad_fn:
            values = tensor.detach()
        there = None if values is None or not is_plain(values) else found.made.axes_of(values)
        if there is not None:
            values, others = there
            (units,) = (n for i, n in enumerate(values.shape) if i not in others)
            key = found.made.layer, found.slope.name, units
            self.units.setdefault(key, UnitSum(found.slope, is_output=is_output)).add(values, others, found.slope)

    def _add_state(self, made: Made, slope: Slope, values: Tensor) -> None:
        """Look at the states of a recurrent layer that has no gates: they are what its activation gave."""
        if (there := made.axes_of(values)) is not None:
            key = made.layer, slope.name, made.shape[made.axis]
            self.units.setdefault(key, UnitSum(slope)).add(*there, slope)

    def made(self, name: str, layer: nn.Module, result: Any) -> None:
        """Look at the output of a layer, and note who made it."""
        self.order.setdefault(name, len(self.order))
        outputs = [t for t in tensors_in(result) if t.ndim and is_plain(t)]
        outputs = [t for t in outputs if t.requires_grad or self.everything]
        if outputs and (slope := slope_of_state(layer)) is not None and self._is_looked_at(name):
            self._add_state(Made(name, tuple(outputs[0].shape), axis_of(layer, outputs[0])), slope, outputs[0].detach())
        for output in outputs:
            self.trail.made(output, name, axis_of(layer, output))
        if outputs and not is_norm(layer) and self._is_looked_at(name):
            signal = self.signals.setdefault(name, SignalSum(embeds=is_embedding(layer)))
            signal.add(outputs[0], axis_of(layer, outputs[0]))
            if outputs[0].requires_grad:
                if self._kept is not None:
                    self._kept.drop()
                self._kept = Kept(outputs[0], axis_of(layer, outputs[0]))
                signal.heed(outputs[0], self._kept, partial(self.safely, layer=name))
                if self.edges is not None:
                    self.edges.append(torch.autograd.graph.get_gradient_edge(outputs[0]))

    def safely(self, look: Callable[..., Any], *args: Any, layer: str | None = None) -> Any:
        """Look, and let nothing that goes wrong in it reach the loop."""
        try:
            with torch.no_grad():
                return look(*args)
        except Exception as error:  # out of memory, say: the run goes on, and is not looked at
            if layer is not None and not self.everything and _is_of_layer(error):
                self._drop(layer, error)
                return None
            is_new, self.error = self.error is None, self.error or error
            if is_new and not self.everything:
                why = f"{type(error).__name__}: {error}"
                warnings.warn(f"Activations are not looked at any more: {why}.", GradGuardWarning, stacklevel=2)
            return None

    def _drop(self, layer: str, error: Exception) -> None:
        if layer not in self.dropped:
            self.dropped.add(layer)
            what = f"Activations at {layer or 'the model'} are not looked at any more: {type(error).__name__}: {error}."
            warnings.warn(what, GradGuardWarning, stacklevel=3)
        if (signal := self.signals.pop(layer, None)) is not None:
            signal.is_over = True


def _owner(models: Sequence[nn.Module], layers: Sequence[nn.Module]) -> list[nn.Module]:
    """Give the model that all layers are part of: what another one takes of it is no output. None of a compiled one."""
    wanted = {id(layer) for layer in layers}
    owners = [model for model in models if any(id(part) in wanted for part in model.modules())]
    return owners if len(owners) == 1 and not is_compiled(owners[0]) else []


def _is_of_layer(error: Exception) -> bool:
    """Whether the next layer may well be looked at."""
    is_memory = isinstance(error, torch.OutOfMemoryError) or "memory" in str(error)
    return isinstance(error, AttributeError | IndexError | RuntimeError) and not is_memory
