"""What is not finite in a forward and a backward pass, in the order in which it came about, and in which module."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gradguard.functional.nested import tensors_in
from gradguard.probe.nested_tensors import named_tensors

# What puts -inf where a mask says so, or +inf: that is meant.
MEANT = frozenset({"masked_fill", "masked_fill_", "where", "fill_", "full", "full_like", "tensor", "new_full", "triu"})

# Whose output holds what lay there before.
EMPTY = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"})


class Count(NamedTuple):
    """How many of some entries are not finite."""

    nan: int = 0
    inf: int = 0
    of: int = 0
    minus: int = 0  # of the Inf, those that are negative

    def __bool__(self) -> bool:
        return self.nan + self.inf > 0

    def __str__(self) -> str:
        kinds = [f"{n:,} {kind}" for n, kind in ((self.nan, "NaN"), (self.inf, "Inf")) if n]
        return f"{' and '.join(kinds) or 'no NaN or Inf'} of {self.of:,} entries"

    @property
    def is_mask(self) -> bool:
        """Whether there is nothing but -inf, as masks have it."""
        return self.nan == 0 and self.inf == self.minus > 0

    @property
    def is_one_signed(self) -> bool:
        """Whether there is nothing but -inf, or nothing but +inf."""
        return self.nan == 0 and self.inf > 0 and self.minus in (0, self.inf)


class Operation(NamedTuple):
    """A function that gave what is not finite.

    Attributes:
        at: when, among all calls.
        module: within which one, None outside of the model.
        name: the function's.
        gave: what of its output is not finite.
        took: what of its inputs was not.
        meant: whether it is one that puts -inf, or +inf, somewhere on purpose.
    """

    at: int
    module: str | None
    name: str
    gave: Count
    took: Count
    meant: bool


class Called(NamedTuple):
    """A call of a module that is over: when it began and ended, what it took and gave that is not finite."""

    begun: int
    at: int
    module: str
    took: dict[str, Count]
    gave: Count


class Backward(NamedTuple):
    """A node of the graph of autograd through which a gradient went that is not finite."""

    module: str | None
    name: str
    took: Count
    gave: Count


def count(value: Any) -> Count:
    """Count what is not finite among the numbers of a value. Host sync: one for each tensor that has such."""
    total = Count()
    for tensor in tensors_in(value):
        try:
            t = tensor.detach()
            t = t if t.layout is torch.strided else t.coalesce().values()
            if not (t.is_floating_point() or t.is_complex()) or t.is_meta:
                continue
            one = Count(0, 0, t.numel())
            if not bool(t.isfinite().all()):
                minus = int(t.isneginf().sum()) if t.is_floating_point() else 0
                one = Count(int(t.isnan().sum()), int(t.isinf().sum()), t.numel(), minus)
        except (RuntimeError, NotImplementedError):  # of a kind that can't be asked
            continue
        total = Count(*(a + b for a, b in zip(total, one, strict=True)))
    return total


@final
class FiniteTrace(TorchFunctionMode):
    """Listens to all functions of torch and to the modules of a model while it is entered.

    Args:
        names: of the modules to tell apart, by module.
    """

    def __init__(self, names: dict[nn.Module, str]) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.calls: list[Called] = []
        self.nodes: list[Backward] = []
        self.first_call: int | None = None  # of a module
        self.is_backward = False
        self._clock, self._is_busy = 0, False
        self._stack: list[tuple[str, int, dict[str, Count]]] = []
        self._owner: dict[Any, str | None] = {}
        self._handles: list[Any] = []
        for module, name in names.items():
            if isinstance(module, torch.jit.ScriptModule):
                continue  # takes no hooks
            self._handles += [
                module.register_forward_pre_hook(self._entering(name), with_kwargs=True),
                module.register_forward_hook(self._leaving(), with_kwargs=True, always_call=True),
            ]

    def close(self) -> None:
        """Take all hooks off, and let go of the graph."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._owner.clear()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function, and look at what it takes and gives."""
        kwargs, name = kwargs or {}, getattr(func, "__name__", str(func))
        if self._is_busy or name in ("__get__", "__set__"):
            return func(*args, **kwargs)
        given = [args, [value for key, value in kwargs.items() if key != "out"]]  # where to write is no input
        took = Count() if self.is_backward else count(given)
        result = func(*args, **kwargs)
        self._clock += 1
        if not self.is_backward and name not in EMPTY and (gave := count(result)):
            name = name.removeprefix("__").removesuffix("__")
            module = self._stack[-1][0] if self._stack else None
            meant = name in MEANT and gave.is_one_signed
            self.operations.append(Operation(self._clock, module, name, gave, took, meant))
        self.own(args[0] if result is None and args else result)  # x[0] = y gives nothing
        return result

    def _entering(self, name: str) -> Callable[..., None]:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> None:
            with self._busy():
                self._clock += 1
                self.own([args, list(kwargs.values())])
                self.first_call = self.first_call or self._clock
                given = {} if self.is_backward else {k: count(t) for k, t in _arguments(args, kwargs).items()}
                self._stack.append((name, self._clock, {k: bad for k, bad in given.items() if bad}))

        return enter

    def _leaving(self) -> Callable[..., None]:
        def leave(_: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            with self._busy():
                self._clock += 1
                self.own(output)
                if not self._stack:  # a hook before ours has failed
                    return
                name, begun, took = self._stack.pop()
                gave = Count() if self.is_backward else count(output)
                if took or gave:
                    self.calls.append(Called(begun, self._clock, name, took, gave))

        return leave

    def own(self, result: Any) -> None:
        """Note of new nodes of the graph behind a result in which module they were made."""
        owner = self._stack[-1][0] if self._stack else None
        for node in new_nodes(result, self._owner):
            self._owner[node] = owner
            if self.is_backward:  # made anew by a checkpoint
                self._listen(node)

    @property
    def is_checkpointed(self) -> bool:
        """Whether a part of the graph is made in the backward pass only: no gradient can be asked for by name then."""
        return any(node.name() == "CheckpointFunctionBackward" for node in self._owner)

    def listen_to_backward(self, loss: Tensor) -> None:
        """Hear of all gradients on the way from the loss."""
        with self._busy():
            self.own(loss)
            self.is_backward = True
            for node in self._owner:
                self._listen(node)

    def _listen(self, node: Any) -> None:
        name, owner = node.name(), self._owner[node]
        if "AccumulateGrad" in name:
            return

        def ran(gave: Any, took: Any) -> None:
            with self._busy():
                if self.nodes:
                    return  # the first one is the one that matters
                came, went = count(list(took)), count(list(gave))
                if came or went:
                    self.nodes.append(Backward(owner, name, came, went))

        self._handles.append(node.register_hook(ran))

    def _busy(self) -> Any:
        return _Busy(self)


class _Busy:
    """While a trace itself computes, it listens to nothing."""

    def __init__(self, trace: Any) -> None:
        self.trace = trace

    def __enter__(self) -> None:
        self.was, self.trace._is_busy = self.trace._is_busy, True

    def __exit__(self, *_: object) -> None:
        self.trace._is_busy = self.was


def new_nodes(result: Any, known: dict[Any, Any]) -> Iterator[Any]:
    """Go through the nodes of the graph behind a result, as far as they are not known yet."""
    waiting = [t.grad_fn for t in tensors_in(result) if t.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in known:
            continue
        yield node  # whoever takes it makes it known
        waiting += [behind for behind, _ in node.next_functions if behind is not None and behind not in known]


def _arguments(args: Any, kwargs: Any) -> dict[str, Tensor]:
    return {**named_tensors(args, "args"), **named_tensors(kwargs, "kwargs")}
