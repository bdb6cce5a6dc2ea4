"""Multiplies gradients in place, whatever their layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
    if not isinstance(factor, Tensor) or (factor.is_cpu and not factor.ndim):  # reading it waits for nothing
        if (one := float(factor)) != 1 and tensors:
            torch._foreach_mul_([stored_part(t) for t in tensors], one)
        return
    stored = [stored_part(t) for t in tensors]
    if factor.is_cpu:
        moved = [(t, c) for t, c in zip(stored, factor.tolist(), strict=True) if c != 1]
        if moved:
            torch._foreach_mul_([t for t, _ in moved], [c for _, c in moved])
        return
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(stored):
        groups.setdefault((t.device, t.dtype), []).append(i)
    for (device, dtype), members in groups.items():
        # The fused kernel wants the factor in the type of float32 gradients; half types are multiplied in float32.
        wide = torch.float64 if dtype in (torch.float64, torch.complex128) else torch.float32
        there = factor.to(device, wide, non_blocking=True)
        if factor.ndim == 0:
            torch._foreach_mul_([stored[i] for i in members], there)
        else:
            for i in members:
                stored[i].mul_(there[i])


def stored_part(tensor: Tensor) -> Tensor:
    """Give what this rank stores of a tensor, to be changed in place: a DTensor's shard, a sparse one's values.

    The values of an uncoalesced one are not its entries, but multiplying them multiplies those. Host sync: none.
    """
    whole: Any = tensor
    local: Tensor = whole.to_local() if type(tensor) is not Tensor and hasattr(tensor, "to_local") else tensor
    if local.layout is torch.strided:
        return local
    return local._values() if local.layout is torch.sparse_coo else local.values()
