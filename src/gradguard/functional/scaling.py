"""Multiplies gradients in place, whatever their layout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_TINY = torch.finfo(torch.float32).tiny
HALF = (torch.float16, torch.bfloat16)  # a foreach call would round the factor to these: 1e-8 is 0 in float16


@torch.no_grad()
def scale_(tensors: Sequence[Tensor], factor: Tensor | float) -> None:
    """Multiply each tensor by one factor, or by its own, with one foreach call per device.

    On a CPU, a factor of 1 costs nothing.

    Args:
        tensors: n distinct tensors of any dtype, device and layout; of a DTensor, each rank multiplies its shard.
        factor: a float or of shape []; or [n], with one factor each.

    Host sync: none. Mutates: the tensors.

    >>> grads = [torch.tensor([1.0, 2.0]), torch.tensor([3.0])]
    >>> scale_(grads, torch.tensor([0.5, 1.0]))
    >>> grads
    [tensor([0.5000, 1.0000]), tensor([3.])]
    """
    stored = [stored_part(t) for t in tensors]
    if not isinstance(factor, Tensor) or factor.is_cpu:  # reading it waits for nothing
        if isinstance(factor, Tensor) and factor.ndim:
            _scale_each_(stored, factor.tolist())
        else:
            _scale_all_(stored, float(factor))
        return
    for (device, dtype), members in _groups(stored).items():
        # The fused kernel wants the factor in the type of the gradients.
        wide = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
        there = factor.to(device, wide, non_blocking=True).clamp(min=torch.finfo(wide).tiny)
        if factor.ndim == 0 and dtype not in HALF:
            torch._foreach_mul_([stored[i] for i in members], there)
            continue
        for i in members:
            _multiply_(stored[i], there[i] if factor.ndim else there)


def _scale_all_(tensors: Sequence[Tensor], factor: float) -> None:
    single = [t for t in tensors if t.dtype in (torch.float32, torch.complex64)]
    if factor >= _TINY and single and factor != 1:  # in a tensor of their type, a factor reaches many the fastest
        torch._foreach_mul_(single, torch.tensor(factor, dtype=torch.float32, device="cpu"))
        tensors = [t for t in tensors if t.dtype not in (torch.float32, torch.complex64)]
    _scale_each_(tensors, [factor] * len(tensors))


def _scale_each_(tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
    for tensor, factor in zip(tensors, factors, strict=True):
        if factor >= _TINY or factor == 0 or tensor.dtype in (torch.float64, torch.complex128):
            if factor != 1:
                tensor.mul_(factor)
        else:  # the factor itself is no float32, its root is one
            tensor.mul_(math.sqrt(factor)).mul_(math.sqrt(factor))


def _groups(tensors: Sequence[Tensor]) -> dict[tuple[torch.device, torch.dtype], list[int]]:
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(tensors):
        groups.setdefault((t.device, t.dtype), []).append(i)
    return groups


def _multiply_(tensor: Tensor, factor: Tensor) -> None:
    if tensor.dtype in HALF and tensor.ndim:  # a factor of no dimension would be rounded to the half type first
        torch.mul(tensor, factor.reshape([1] * tensor.ndim), out=tensor)
    else:
        tensor.mul_(factor)


def stored_part(tensor: Tensor) -> Tensor:
    """Give what this rank stores of a tensor, to be changed in place: a DTensor's shard, a sparse one's values.

    The values of an uncoalesced one are not its entries, but multiplying them multiplies those. Host sync: none.
    """
    whole: Any = tensor
    local: Tensor = whole.to_local() if type(tensor) is not Tensor and hasattr(tensor, "to_local") else tensor
    if local.layout is torch.strided:
        return local
    return local._values() if local.layout is torch.sparse_coo else local.values()
