"""Norms of many tensors at once: accurate on large tensors, safe for half types, for every layout that gradients have.

Shape legend: n = number of tensors, U = number of units (rows of a weight).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradguard.functional.memory import in_memory_order

# A full reduction in float32 drifts with the length: one norm over 3e7 entries is off by 1.7e-3 on a CPU, one over
# 1e4 equal ones by 8e-6. Rows of ROW entries, then the norm of their norms, stay within 1e-6 and use all cores.
ROW = 512
LARGE = 2 * ROW


def norms(tensors: Sequence[Tensor], norm_type: float = 2.0, *, exact: bool = False, wide: bool = False) -> Tensor:
    r"""Norm of each tensor as one vector, from one foreach call per device and dtype.

    .. math:: n_i = \Big(\sum_j |t_{ij}|^p\Big)^{1/p}

    A DTensor yields the norm of the whole tensor, the same on every rank: all ranks must call this together.

    Args:
        tensors: n tensors; any floating or complex dtype, device, and dense, sparse or sharded layout, mixed at will.
        norm_type: p > 0, or ``inf`` for the largest absolute value.
        exact: accumulate in float64, with the largest entry factored out: right for any finite input, also where the
            float32 square of an entry overflows. About five times slower.
        wide: accumulate in float64 (but on MPS, which has none): right for any finite float32 input. Slower on a CPU,
            about as fast on a GPU, which waits for its memory.

    Returns:
        Shape [n], on the first tensor's device; float32, or float64 as soon as one input is float64 or with ``exact``
        or ``wide``.

    Raises:
        ValueError: ``norm_type`` is not a positive number.

    Host sync: none (a sparse tensor is coalesced, which reads its number of entries). Mutates: nothing.

    >>> norms([torch.tensor([3.0, 4.0]), torch.tensor([[1.0, 1.0], [1.0, 1.0]])])
    tensor([5., 2.])
    """
    if not norm_type > 0:
        raise ValueError(f"norms needs norm_type > 0 or inf, got {norm_type}.")
    if not tensors:
        return torch.zeros(0, dtype=torch.float32)
    if any(_is_dtensor(t) for t in tensors):
        return _norms_of_sharded(tensors, norm_type, exact=exact, wide=wide)
    dense = [_as_dense_real(t, norm_type) for t in tensors]
    if exact:
        return _stack([_exact_norm(t, norm_type) for t in dense])
    if 8 < norm_type < math.inf:  # powers that high leave the range of float64 unless the largest entry is factored out
        return _stack([_exact_norm(t, norm_type).to(_accumulation_dtype(t.dtype)) for t in dense])
    if len({t.dtype for t in dense}) == 1 and len({t.device for t in dense}) == 1:
        return torch.stack(_foreach(dense, norm_type, wide=wide))
    out: list[Tensor] = [dense[0]] * len(dense)
    groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for i, t in enumerate(dense):
        groups.setdefault((t.device, t.dtype), []).append(i)
    for members in groups.values():
        for i, norm in zip(members, _foreach([dense[i] for i in members], norm_type, wide=wide), strict=True):
            out[i] = norm
    return _stack(out)


def total_norm(parts: Tensor, norm_type: float = 2.0) -> Tensor:
    """Norm of the concatenation of tensors whose norms are ``parts``; no overflow below the float64 range.

    Args:
        parts: shape [..., n], norms of the same ``norm_type``.
        norm_type: p > 0, or ``inf``.

    Returns:
        Shape [...], dtype and device of ``parts``; zero where n is 0.

    Host sync: none. Mutates: nothing.

    >>> total_norm(torch.tensor([3.0, 4.0]))
    tensor(5.)
    """
    if parts.shape[-1] == 0:
        return parts.new_zeros(parts.shape[:-1])
    if parts.device.type == "mps":  # has no float64
        return _vector_norm(parts, norm_type, dim=-1)
    return _vector_norm(parts, norm_type, dim=-1, dtype=torch.float64).to(parts.dtype)


def unit_norms(
    tensor: Tensor,
    norm_type: float = 2.0,
    *,
    dim: int | tuple[int, ...] = 0,
    keepdim: bool = False,
    wide: bool = False,
) -> Tensor:
    """Norm of each unit of one tensor: of every slice along ``dim``, the rows of a Linear or Conv weight by default.

    Args:
        tensor: any floating or complex dtype; a vector or scalar is one unit.
        norm_type: p > 0, or ``inf``.
        dim: the axis that counts the units, or several of them.
        keepdim: whether the other axes stay, with length 1, so that the result broadcasts against the tensor.
        wide: accumulate in float64, as in :func:`norms`.

    Returns:
        Shape [U], that of the axes ``dim``, or [1] for a vector or scalar; float32, or float64 as ``norms`` has it.

    Raises:
        ValueError: ``norm_type`` is not a positive number.

    Host sync: none. Mutates: nothing.

    >>> unit_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    tensor([5., 2.])
    """
    if not norm_type > 0:
        raise ValueError(f"unit_norms needs norm_type > 0 or inf, got {norm_type}.")
    whole = _local_part(tensor, gather=True)
    dense = whole.to_dense() if whole.layout is not torch.strided else whole
    real = dense.abs() if dense.is_complex() else dense
    axes = (dim,) if isinstance(dim, int) else dim
    others = [axis for axis in range(real.ndim) if real.ndim < 2 or axis not in axes]
    dtype = torch.float64 if wide and real.device.type != "mps" else _accumulation_dtype(real.dtype)
    found: Tensor = torch.linalg.vector_norm(real, norm_type, dim=others, keepdim=keepdim, dtype=dtype)
    return found.reshape(1) if real.ndim < 2 and not keepdim else found


def _vector_norm(tensor: Tensor, p: float, *, dim: int | None = None, dtype: torch.dtype | None = None) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(tensor, p, dim=dim, dtype=dtype)
    return norm


def _accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype is torch.float64 else torch.float32


def _is_dtensor(tensor: Tensor) -> bool:
    # Asked of the object: importing torch.distributed.tensor would cost everybody who has no sharded parameters.
    return type(tensor) is not Tensor and hasattr(tensor, "full_tensor")


def _as_dense_real(tensor: Tensor, norm_type: float) -> Tensor:
    """Give the strided real tensor that has the same norm."""
    if tensor.layout is not torch.strided:
        # Duplicate indices add up, so the values of an uncoalesced gradient are not its entries.
        tensor = tensor.coalesce().values() if tensor.layout is torch.sparse_coo else tensor.values()
    if tensor.dtype.is_complex:
        tensor = torch.view_as_real(tensor.resolve_conj()) if norm_type == 2 else tensor.abs()
    return tensor if tensor.numel() else tensor.new_zeros(1)  # an empty shard has no largest entry


def _foreach(tensors: list[Tensor], norm_type: float, *, wide: bool) -> list[Tensor]:
    """Norm each of several tensors of one device and dtype."""
    wide = wide and tensors[0].device.type != "mps"
    dtype = torch.float64 if wide else _accumulation_dtype(tensors[0].dtype)
    if norm_type not in (1, 2, math.inf):  # a general power costs far more than its accumulation in float64
        return [norm.to(dtype) for norm in torch._foreach_norm(tensors, norm_type, torch.float64)]
    if tensors[0].is_cpu:
        tensors = [_shortened(t, norm_type, dtype) if t.numel() >= LARGE else t for t in tensors]
    return list(torch._foreach_norm(tensors, norm_type, dtype))


def _shortened(tensor: Tensor, norm_type: float, dtype: torch.dtype) -> Tensor:
    """Give a short vector of the same norm: the norms of the tensor's rows of ROW entries, and what is left over."""
    flat = in_memory_order(tensor)
    while (numel := flat.numel()) >= LARGE:
        row = min(ROW, numel & -numel)  # a power of two that leaves nothing over, unless that makes the rows too short
        left_over = 0 if row >= ROW // 2 else numel % ROW
        whole = flat[:-left_over] if left_over else flat
        rows = _vector_norm(whole.view(-1, ROW if left_over else row), norm_type, dim=1, dtype=dtype)
        flat = torch.cat([rows, flat[-left_over:].to(dtype)]) if left_over else rows
    return flat


def _exact_norm(tensor: Tensor, norm_type: float) -> Tensor:
    wide = tensor.to(torch.float64)
    largest = wide.abs().max()
    # 1 where there is nothing to factor out (zero) or no norm to save (Inf, NaN): those pass through unchanged.
    factor = torch.where(largest.isfinite() & (largest > 0), largest, 1.0)
    return factor * _vector_norm(wide / factor, norm_type)


def _stack(scalars: list[Tensor]) -> Tensor:
    """Stack scalars of several devices and float types."""
    device = scalars[0].device
    dtype = torch.float64 if any(s.dtype is torch.float64 for s in scalars) else torch.float32
    return torch.stack([s.to(device=device, dtype=dtype, non_blocking=True) for s in scalars])


def _norms_of_sharded(tensors: Sequence[Tensor], norm_type: float, *, exact: bool, wide: bool) -> Tensor:
    # The p-th powers of a large p leave the float64 range, and so do squares on the exact path: gather the tensor.
    gather = exact or 8 < norm_type < math.inf
    local = [_local_part(t, gather=gather) for t in tensors]
    parts = norms(local, norm_type, exact=exact, wide=wide)
    return parts if gather else norms_over_mesh(parts, tensors, norm_type)


def _local_part(tensor: Tensor, *, gather: bool) -> Tensor:
    if not _is_dtensor(tensor):
        return tensor
    sharded: Any = tensor
    # The parts of an unreduced gradient add up before any norm is taken.
    gather = gather or any(placement.is_partial() for placement in sharded.placements)
    part: Tensor = sharded.full_tensor() if gather else sharded.to_local()
    return part


def norms_over_mesh(parts: Tensor, tensors: Sequence[Tensor], norm_type: float = 2.0) -> Tensor:
    """Turn norms of local shards into norms of whole tensors: one collective per mesh and sharding.

    Args:
        parts: shape [n], norm of what this rank holds of each tensor.
        tensors: the n tensors; only their type and placements are read. Plain ones keep their norm.
        norm_type: p in (0, 8], or ``inf``.

    Returns:
        Shape [n], dtype and device of ``parts``; equal on all ranks, which must call this together.

    Host sync: none. Mutates: nothing.
    """
    meshes: dict[tuple[Any, tuple[bool, ...]], list[int]] = {}
    for i, tensor in enumerate(tensors):
        whole: Any = tensor
        if _is_dtensor(whole) and not any(placement.is_partial() for placement in whole.placements):
            is_shard = tuple(placement.is_shard() for placement in whole.placements)
            if any(is_shard):
                meshes.setdefault((whole.device_mesh, is_shard), []).append(i)
    if not meshes:
        return parts
    from torch.distributed.tensor import DTensor, Partial, Replicate

    out = list(parts.unbind())
    for (mesh, is_shard), members in meshes.items():
        mine = torch.stack([out[i] for i in members])
        # A maximum over ranks may lose a NaN, an Inf it keeps.
        largest = mine.masked_fill(mine.isnan(), math.inf)
        powers, reduce_op = (largest, "max") if math.isinf(norm_type) else (mine.double() ** norm_type, "sum")
        placements = [Partial(reduce_op) if shard else Replicate() for shard in is_shard]
        whole = DTensor.from_local(powers, mesh, placements, run_check=False).full_tensor()
        joint = whole if math.isinf(norm_type) else whole ** (1 / norm_type)
        for i, norm in zip(members, joint.to(parts.dtype).unbind(), strict=True):
            out[i] = norm
    return torch.stack(out)
