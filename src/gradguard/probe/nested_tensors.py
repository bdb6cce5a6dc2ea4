"""Tensors within nested values, each with its place in them, and the same values with other tensors in their places."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def named_tensors(value: Any, path: str = "") -> dict[str, Tensor]:
    """Give the tensors in a value by their places. Host sync: none. Mutates: nothing.

    >>> import torch
    >>> list(named_tensors({"x": torch.ones(1), "y": [torch.zeros(1), None]}, "batch"))
    ["batch['x']", "batch['y'][0]"]
    """
    found: dict[str, Tensor] = {}

    def note(place: str, tensor: Tensor) -> Tensor:
        found[place] = tensor
        return tensor

    _walk(value, note, path, rebuild=False)
    return found


def substituted(value: Any, change: Callable[[str, Tensor], Tensor], path: str = "") -> Any:
    """Rebuild a value with other tensors in it; what holds them is new, what holds none stays the same object.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> substituted((torch.ones(2), "label"), lambda place, t: 2 * t)
    (tensor([2., 2.]), 'label')
    """
    return _walk(value, change, path, rebuild=True)


def _walk(value: Any, change: Callable[[str, Tensor], Tensor], path: str, *, rebuild: bool) -> Any:
    if isinstance(value, Tensor):
        return change(path, value)
    if isinstance(value, PackedSequence):
        return value._replace(data=change(f"{path}.data", value.data))
    parts: dict[Any, tuple[str, Any]] = {}
    if isinstance(value, Mapping):
        parts = {key: (f"[{key!r}]", item) for key, item in value.items()}
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        parts = {name: (f".{name}", getattr(value, name)) for name in value._fields}
    elif isinstance(value, list | tuple):
        parts = {i: (f"[{i}]", item) for i, item in enumerate(value)}
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: (f".{field.name}", getattr(value, field.name)) for field in dataclasses.fields(value)}
    done = {key: _walk(item, change, path + place, rebuild=rebuild) for key, (place, item) in parts.items()}
    if not rebuild or all(done[key] is item for key, (_, item) in parts.items()):
        return value
    if isinstance(value, tuple):
        return type(value)(**done) if hasattr(value, "_fields") else type(value)(done.values())
    made: Any = copy.copy(value)
    for key, item in done.items():
        if isinstance(value, Mapping | list):
            made[key] = item
        else:
            object.__setattr__(made, key, item)
    return made
