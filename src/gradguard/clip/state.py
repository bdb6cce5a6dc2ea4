"""The states of clippers, nested named tuples of tensors, as what a checkpoint can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradguard.clip.binding import Binding
from gradguard.functional import Measurement
from gradguard.functional.number import Number, is_finite, precise, scalar, square, where


def zero(binding: Binding) -> Number:
    """Give the zero that the state of one number begins with: a float where the parameters lie on the CPU."""
    return scalar(torch.zeros((), device=binding.params[0].device)) if binding.params else 0.0


def observed(measurement: Measurement) -> Number:
    """Give the total norm as a statistic may take it in: NaN where it, or its square, is no number."""
    total = scalar(measurement.total)
    return where(is_finite(square(total)), total, math.nan)


def numbers_of(state: Any, path: str = "") -> dict[str, Tensor | float]:
    """Give all floats and tensors of a state by the path of their fields; no tensor is ever changed in place.

    >>> from gradguard.functional import new_moments
    >>> list(numbers_of(new_moments(torch.zeros(()))))
    ['seen', 'mean', 'var']
    """
    if isinstance(state, Tensor | float):
        return {path: state}
    if not hasattr(state, "_fields"):
        return {}
    found: dict[str, Tensor | float] = {}
    for field in state._fields:
        found |= numbers_of(getattr(state, field), f"{path}.{field}" if path else field)
    return found


def _first_number(state: Any) -> Tensor | float | None:
    while hasattr(state, "_fields") and len(state):
        state = state[0]
    return state if isinstance(state, Tensor | float) else None


def with_numbers(state: Any, numbers: Mapping[str, Tensor | float], path: str = "") -> Any:
    """Give a state with other floats and tensors at the same paths."""
    if isinstance(state, Tensor | float):
        return numbers[path]
    if not hasattr(state, "_fields"):
        return state
    fields = {f: with_numbers(getattr(state, f), numbers, f"{path}.{f}" if path else f) for f in state._fields}
    return state._replace(**fields)


def on_device(state: Any, device: torch.device) -> Any:
    """Give a state that was begun on one device for gradients on another; itself where they are on the same.

    On a CPU, a state of one number is of floats; on other devices it is of tensors. Host sync: none, but one where
    gradients come back to the CPU.
    """
    host = device.type == "cpu"
    one = _first_number(state)  # they all lie on the same device
    if one is None or (host if isinstance(one, float) else one.device == device and (one.ndim or not host)):
        return state
    numbers = numbers_of(state)
    moved = {
        path: x.item() if host and not x.ndim and x.is_floating_point() else x.to(device, non_blocking=True)
        for path, x in numbers.items()
        if isinstance(x, Tensor) and x.device != device
    }
    if not host:
        floats = {path: x for path, x in numbers.items() if isinstance(x, float)}
        moved |= {path: precise(torch.zeros((), device=device)).fill_(x) for path, x in floats.items()}
    return with_numbers(state, {**numbers, **moved}) if moved else state


def filled(saved: Mapping[str, Tensor | float], fresh: Any, old: Sequence[str], new: Sequence[str]) -> Any:
    """Fill a fresh state with saved numbers; the last axis of a tensor goes by parameter where there are names.

    Args:
        saved: what :func:`numbers_of` gave, of a state on any device.
        fresh: the state of the parameters that there are now.
        old: names of the parameters that were saved; empty where the state is not per parameter.
        new: names of those that there are now.

    Raises:
        ValueError: the tensors do not fit, since the settings are others.
    """
    at = {name: i for i, name in enumerate(old)}
    known = [(i, at[name]) for i, name in enumerate(new) if name in at]
    found: dict[str, Tensor | float] = {}
    for path, like in numbers_of(fresh).items():
        if path not in saved:
            raise ValueError(f"{path} is missing")
        if isinstance(like, float):
            found[path] = float(saved[path])
            continue
        source = torch.as_tensor(saved[path], dtype=like.dtype).to(like.device)
        expected = (*like.shape[:-1], len(old)) if new or old else tuple(like.shape)
        if tuple(source.shape) != expected:
            raise ValueError(f"{path} has shape {tuple(source.shape)}, these settings need {expected}")
        if known:
            to, of = (torch.tensor(side, device=like.device) for side in zip(*known, strict=True))
            like = like.clone()
            like[..., to] = source[..., of]
        found[path] = like if new or old else source.clone()
    return with_numbers(fresh, found)
