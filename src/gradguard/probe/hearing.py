"""Listening to the recurrent modules of a model while it trains: what each one saw, and the gradients that came to it.

Nothing is computed here and nothing is changed: hooks note references, and the loop goes on as it would without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final

import torch
from torch import Tensor, nn

from gradguard.gates import gates_of
from gradguard.probe.calls import CallOfOurs, CallOfTorch, tensors_of

_alone: ContextVar[bool] = ContextVar("alone", default=False)
MOST = 4  # calls of a module that are kept of one step: of accumulation, the first ones


@contextmanager
def alone() -> Iterator[None]:
    """Let only those hear who begin to listen within: what a probe calls is no part of the loop that others look at."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


def is_alone() -> bool:
    """Whether a probe calls the model."""
    return _alone.get()


def is_recurrent(module: nn.Module) -> bool:
    """Whether it runs whole sequences: ``nn.RNN``, ``nn.GRU``, ``nn.LSTM``, and all of ``gradguard.nn``."""
    return gates_of(module) is not None and isinstance(getattr(module, "num_layers", None), int)


@final
class Ear:
    """Listens to one module from ``on()`` to ``off()``.

    Attributes:
        calls: the first ones that a gradient may come to.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.calls: list[Any] = []
        self._handles: list[Any] = []
        self._hook: _Hook | None = None
        self._generator: Tensor | None = None
        self._wants_gradients = True

    def on(self, *, wants_gradients: bool = True) -> None:
        """Begin to listen, to calls from now on; to those alone that gradients may come to, unless told otherwise."""
        self.off()
        self.calls, self._wants_gradients = [], wants_gradients
        if isinstance(self.module, nn.RNNBase):
            before, after = _Hook(self._before), _Hook(self._after)
            self._handles = [
                self.module.register_forward_pre_hook(before, with_kwargs=True),
                self.module.register_forward_hook(after, with_kwargs=True),
            ]
        else:
            self._hook = _Hook(self._heard)
            self.module.listeners = (*self.module.listeners, self._hook)

    def off(self) -> None:
        """Listen no more."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if not isinstance(self.module, nn.RNNBase):
            self.module.listeners = tuple(hook for hook in self.module.listeners if hook is not self._hook)
            if not self.module.listeners:
                self.module.__dict__.pop("listeners")
        for call in self.calls:
            for incoming in call.incoming:
                incoming.close()

    def _before(self, module: Any, args: Any, kwargs: Any) -> None:
        draws = module.training and module.dropout > 0 and module.num_layers > 1
        self._generator = torch.get_rng_state() if draws else None

    def _after(self, module: Any, args: Any, kwargs: Any, result: Any) -> None:
        given = (*args, *(kwargs[name] for name in ("input", "hx") if name in kwargs), None, None)[:2]
        made = tensors_of(result)
        if len(self.calls) < MOST and torch.is_grad_enabled() and any(t.requires_grad for t in made):
            weights = zip(module._flat_weights_names, module._flat_weights, strict=True)
            computed = {name: w for name, w in weights if not isinstance(module._parameters.get(name), nn.Parameter)}
            self.calls.append(CallOfTorch(module, given, result, self._generator, computed))

    def _heard(self, one: Any) -> None:
        if self._wants_gradients and not any(t.requires_grad for t in one.sequences):
            return
        if one.number == 0 and len(self.calls) < MOST:
            self.calls.append(CallOfOurs(self.module, one))
        elif one.number and self.calls and len(self.calls[-1].passes) == one.number:
            self.calls[-1].add(one)


class _Hook:
    """A hook that is no part of the module: its copies do nothing."""

    def __init__(self, call: Callable[..., None] | None = None) -> None:
        self.call, self.is_of_probe = call, is_alone()

    def __call__(self, *args: Any) -> None:
        """Pass the call on."""
        if self.call is not None and not torch.compiler.is_compiling() and self.is_of_probe >= is_alone():
            self.call(*args)

    def __deepcopy__(self, memo: Any) -> _Hook:
        return _Hook()

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()
