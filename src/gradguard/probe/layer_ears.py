"""The hooks of an :class:`ActivationWatch`: on each layer, and on the model whose layers these are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import torch
from torch import nn

from gradguard.probe.hearing import Hook

if TYPE_CHECKING:
    from gradguard.probe.activation_watch import ActivationWatch


@final
class LayerEar:
    """Listens to one layer."""

    def __init__(self, watch: ActivationWatch, name: str, layer: nn.Module) -> None:
        self.watch, self.name, self.layer = watch, name, layer
        self._handles: list[Any] = []

    def on(self) -> None:
        """Begin to listen."""
        self.off()
        before, after = Hook(self._before), Hook(self._after)
        self._handles = [
            self.layer.register_forward_pre_hook(before, with_kwargs=True),
            self.layer.register_forward_hook(after, with_kwargs=True),
        ]

    def off(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _before(self, layer: nn.Module, args: Any, kwargs: Any) -> None:
        if self._counts(layer) and self.watch.called(self.name):
            self.watch.safely(self.watch.took, self.name, (args, kwargs), layer=self.name)

    def _after(self, layer: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if self._counts(layer):
            self.watch.safely(self.watch.made, self.name, layer, result, layer=self.name)

    def _counts(self, layer: nn.Module) -> bool:
        """Whether a call is one of training: of the layer itself, no replica of it."""
        return (
            layer is self.layer
            and is_heard(self.watch, layer)
            and self.name not in self.watch.dropped
            and not (self.name in self.watch.forward and is_backward())  # a checkpoint runs again what was heard
        )


@final
class ModelEar:
    """Listens to what a model gives: behind its last layer there may be an activation that no layer takes."""

    def __init__(self, watch: ActivationWatch, model: nn.Module) -> None:
        self.watch, self.model = watch, model
        self._handle: Any = None

    def on(self) -> None:
        """Begin to listen."""
        self.off()
        self._handle = self.model.register_forward_hook(Hook(self._after))

    def off(self) -> None:
        """Listen no more."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None

    def _after(self, model: nn.Module, args: Any, result: Any) -> None:
        if model is self.model and is_heard(self.watch, model) and not is_backward():
            self.watch.safely(self.watch.gave, result)


def is_heard(watch: ActivationWatch, module: nn.Module) -> bool:
    """Whether a watch wants to know of a call of a module now."""
    return (
        watch.is_on
        and (module.training or watch.everything)
        and torch.is_grad_enabled()
        and watch.error is None
        and torch._C._get_tracing_state() is None
        and not (torch.cuda.is_available() and torch.cuda.is_current_stream_capturing())
    )


def is_backward() -> bool:
    """Whether a backward pass runs."""
    return torch._C._current_graph_task_id() != -1
