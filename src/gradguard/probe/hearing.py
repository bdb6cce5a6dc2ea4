"""Listening to the recurrent modules of a model while it trains: what each one saw, and the gradients that came to it.

Nothing is computed here and nothing is changed: hooks note references, and the loop goes on as it would without them.
"""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, final
from weakref import WeakMethod

import torch
from torch import Tensor, nn

from gradguard.functional import tensors_in
from gradguard.gates import gates_of
from gradguard.probe.calls import CallOfOurs, CallOfTorch

_alone: ContextVar[bool] = ContextVar("alone", default=False)
MOST = 4  # calls of a module that are kept of one step, the last ones


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


def is_known(module: nn.Module) -> bool:
    """Whether what it does is known: not that of a subclass of torch's with a ``forward`` of its own."""
    forwards = (nn.RNN.forward, nn.GRU.forward, nn.LSTM.forward)
    return not isinstance(module, nn.RNNBase) or type(module).forward in forwards


@final
class Ear:
    """Listens to one module from ``on()`` to ``off()``.

    Attributes:
        calls: the last ones that a gradient may come to.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module: Any = module
        self.calls: deque[Any] = deque(maxlen=MOST)
        self._handles: list[Any] = []
        self._hook: Hook | None = None
        self._generator: Tensor | None = None
        self._wants_gradients, self._edges = True, False

    def __deepcopy__(self, memo: Any) -> Ear:
        return Ear(copy.deepcopy(self.module, memo))

    def on(self, *, wants_gradients: bool = True, edges: bool = False) -> None:
        """Begin to listen, to calls from now on.

        Args:
            wants_gradients: whether those calls alone count to which a gradient may come.
            edges: see :class:`gradguard.probe.calls.Incoming`.
        """
        self.off()
        self.calls.clear()
        self._wants_gradients, self._edges = wants_gradients, edges
        if isinstance(self.module, nn.RNNBase):
            before, after = Hook(self._before), Hook(self._after)
            self._handles = [
                self.module.register_forward_pre_hook(before, with_kwargs=True),
                self.module.register_forward_hook(after, with_kwargs=True),
            ]
        else:
            self._hook = Hook(self._heard)
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
        made = tensors_in(result)
        if torch.is_grad_enabled() and any(t.requires_grad for t in made):
            self.calls.append(CallOfTorch(module, given, result, self._generator, edges=self._edges))

    def _heard(self, one: Any) -> None:
        if self._wants_gradients and not any(t.requires_grad for t in one.sequences):
            return
        if one.number == 0:
            self.calls.append(CallOfOurs(self.module, one, edges=self._edges))
        elif one.number and self.calls and len(self.calls[-1].passes) == one.number:
            self.calls[-1].add(one)


class Hook:
    """A hook that is no part of the module: its copies do nothing, and its pickles are something of Python's own."""

    def __init__(self, call: Callable[..., None] | None = None) -> None:
        self.call = None if call is None else WeakMethod(call)  # who listens goes with what wanted to know
        self.is_of_probe = is_alone()

    def __call__(self, *args: Any) -> None:
        """Pass the call on: none of a graph, of a transform of ``torch.func``, or of another probe."""
        if torch.compiler.is_compiling():
            return
        call = None if self.call is None else self.call()
        is_transformed = torch._C._functorch.peek_interpreter_stack() is not None
        if call is not None and not is_transformed and self.is_of_probe >= is_alone():
            call(*args)

    def __deepcopy__(self, memo: Any) -> Hook:
        return Hook()

    def __reduce__(self) -> tuple[Any, tuple[Any, str]]:
        return getattr, (contextlib.nullcontext(), "__exit__")  # takes anything, and is loaded without GradGuard
