"""Tensors as the memory that they occupy."""

from __future__ import annotations

from torch import Tensor


def in_memory_order(tensor: Tensor) -> Tensor:
    """View a dense tensor as one vector, entries in the order in which they lie in memory.

    Whatever sums over all entries may read a channels-last or transposed tensor like this, without a copy.

    Args:
        tensor: strided, any dtype.

    Returns:
        Shape [numel]; a view, or a copy where the tensor has gaps.

    Host sync: none. Mutates: nothing.

    >>> import torch
    >>> in_memory_order(torch.tensor([[1, 2], [3, 4]]).t())
    tensor([1, 2, 3, 4])
    """
    if tensor.is_contiguous():
        return tensor.view(-1)
    strides = tensor.stride()
    outer_first = sorted(range(tensor.ndim), key=lambda dim: -strides[dim])
    return tensor.permute(outer_first).reshape(-1)


def version(tensor: Tensor) -> int:
    """Count how often a tensor was changed in place; of a DTensor, its shard; 0 of an inference tensor.

    Host sync: none.

    >>> import torch
    >>> grad = torch.zeros(2)
    >>> before = version(grad)
    >>> version(grad.add_(1)) - before
    1
    """
    inner = getattr(tensor, "_local_tensor", tensor)
    return 0 if inner.is_inference() else int(inner._version)
