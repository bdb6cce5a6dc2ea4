"""What a detector has seen, as plain containers, numbers and tensors: a checkpoint can hold nothing else."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any, Protocol, TypeVar, runtime_checkable

from torch import Tensor

Kind = TypeVar("Kind", bound=type)
_SAVED: dict[str, type] = {}
_CONTAINERS: dict[str, type] = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)}


@runtime_checkable
class Stateful(Protocol):
    """A part of a detector that saves itself, so that its settings stay those of the code that loads it."""

    def state_dict(self) -> dict[str, Any]:
        """Give what was seen."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""


def saved(kind: Kind) -> Kind:
    """Let a dataclass, named tuple or enum be part of a detector's state."""
    _SAVED[kind.__name__] = kind
    return kind


def to_plain(value: Any) -> Any:
    """Give ``value`` in what ``torch.load(weights_only=True)`` accepts.

    Raises:
        TypeError: a type that is neither a container, a number, a tensor nor marked with :func:`saved`.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Stateful):
        return value.state_dict()
    kind = type(value).__name__
    if kind in _CONTAINERS:
        items = [to_plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
        return {"is": kind, "value": items, **({"maxlen": value.maxlen} if isinstance(value, deque) else {})}
    if isinstance(value, dict):
        return {"is": "dict", "value": [[to_plain(key), to_plain(item)] for key, item in value.items()]}
    if _SAVED.get(kind) is type(value):
        content = value.value if isinstance(value, Enum) else [to_plain(item) for item in _items(value)]
        return {"is": kind, "value": content}
    raise TypeError(
        f"A detector's state needs numbers, strings, tensors and containers of them, got {type(value).__name__}. "
        "Mark it with gradguard.detect.state.saved, or give the detector a state_dict() of its own."
    )


def from_plain(plain: Any, current: Any = None) -> Any:
    """Give back what :func:`to_plain` was given; ``current`` is filled where it keeps settings of its own."""
    if isinstance(current, Stateful):
        current.load_state_dict(plain)
        return current
    if not isinstance(plain, dict):
        return plain.to("cpu", copy=True) if isinstance(plain, Tensor) else plain  # wherever the checkpoint was loaded
    kind, value = plain["is"], plain["value"]
    if kind == "dict":
        return {from_plain(key): from_plain(item) for key, item in value}
    if kind in _CONTAINERS:
        items = [from_plain(item) for item in value]
        if kind == "deque":
            return deque(items, current.maxlen if isinstance(current, deque) else plain["maxlen"])
        return _CONTAINERS[kind](items)
    cls = _SAVED[kind]
    return cls(value) if issubclass(cls, Enum) else cls(*map(from_plain, value))


def _items(value: Any) -> list[Any]:
    return [getattr(value, field.name) for field in fields(value)] if is_dataclass(value) else list(value)
