"""Tensors within what modules take and give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence


def tensors_in(value: Any) -> list[Tensor]:
    """Give the tensors in a value that a module takes or gives: of a packed sequence, its data. Host sync: none.

    >>> import torch
    >>> tensors_in((torch.ones(1), [torch.zeros(1), None]))
    [tensor([1.]), tensor([0.])]
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return [t for item in value for t in tensors_in(item)] if isinstance(value, list | tuple) else []
