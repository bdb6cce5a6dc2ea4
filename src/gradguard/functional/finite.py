"""Where NaN and Inf are, and how many."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def count_non_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Count the NaN and Inf entries of each tensor.

    Args:
        tensors: n tensors, any floating or complex dtype; dense or sparse; a DTensor counts its local shard.

    Returns:
        int64, shape [n], on the first tensor's device.

    Host sync: none. Mutates: nothing.

    >>> count_non_finite([torch.tensor([1.0, float("nan")]), torch.zeros(2)])
    tensor([1, 0])
    """
    if not tensors:
        return torch.zeros(0, dtype=torch.int64)
    device = tensors[0].device
    counts = [(~entries(t).isfinite()).sum().to(device, non_blocking=True) for t in tensors]
    return torch.stack(counts)


def first_non_finite(names: Sequence[str], values: Tensor) -> str | None:
    """Name the first entry of ``values`` that is NaN or Inf.

    Args:
        names: n names.
        values: shape [n], for example the norms of n gradients.

    Returns:
        The name, or None where all values are finite.

    Raises:
        ValueError: there is not one name for each value.

    Host sync: one per call. Mutates: nothing.

    >>> first_non_finite(["a", "b"], torch.tensor([1.0, float("inf")]))
    'b'
    """
    if values.shape != (len(names),):
        raise ValueError(f"first_non_finite needs one value for each of {len(names)} names, got {tuple(values.shape)}.")
    for name, finite in zip(names, values.isfinite().tolist(), strict=True):
        if not finite:
            return name
    return None


def entries(tensor: Tensor) -> Tensor:
    """Give the entries that a tensor stores: all of a dense one, the values of a sparse one. Host sync: none."""
    if tensor.layout is torch.sparse_coo:
        return tensor.coalesce().values()
    return tensor if tensor.layout is torch.strided else tensor.values()
