"""The units of a weight: the slices that one neuron, filter or token owns.

Shape legend: U = number of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradguard.functional import norms, unit_norms

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Units(NamedTuple):
    """Where the units of one tensor lie.

    Attributes:
        axes: the axes that count them; none where the tensor is one unit.
        groups: into how many the first axis is split before ``axes`` are counted; 1 for not at all.
    """

    axes: tuple[int, ...]
    groups: int = 1


def units_of(param: Tensor, owner: nn.Module | None) -> Units:
    """Find the units of a parameter from the module that owns it.

    The rows (axis 0) of Linear, Bilinear, Conv, Embedding, ``in_proj`` and recurrent weights, where each row of the
    stacked gates is a unit of one gate; the output channels of ConvTranspose, which lie on axis 1, group by group. A
    vector is one unit.

    Raises:
        ValueError: the module is not known and may be a convolution either way, or the weight of a ConvTranspose with
            groups is sharded.
    """
    if param.ndim < 2:
        return Units(())
    if owner is None and param.ndim > 2:
        raise ValueError(
            f"AGC needs the module of a weight of shape {tuple(param.shape)}: by its name alone, a convolution can't "
            "be told from a transposed one. Pass the model."
        )
    if isinstance(owner, TRANSPOSED) and param is owner.weight:
        if owner.groups == 1:
            return Units((1,))
        if hasattr(param, "placements"):
            raise ValueError(
                f"AGC can't tell the units of a sharded ConvTranspose with {owner.groups} groups. Put it into exclude=."
            )
        return Units((0, 2), owner.groups)
    return Units((0,))


def norms_of_units(tensors: Sequence[Tensor], units: Sequence[Units]) -> list[Tensor]:
    """2-norm of each unit of each tensor, in a shape that broadcasts against the tensor (split into its groups).

    Args:
        tensors: dense, or sparse by rows, which gives a norm for each row; of a DTensor, the units that this rank holds
            a part of, each with its whole norm.
        units: where those of each tensor lie.

    Returns:
        float32, or float64 for float64 and complex128, on other devices than a CPU, and where squares overflow.

    Raises:
        ValueError: a sparse tensor in another layout than COO, or whose units are no rows.

    Host sync: none (a sparse tensor is coalesced). Mutates: nothing.

    >>> norms_of_units([torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([3.0, 4.0])], [Units((0,)), Units(())])
    [tensor([[5.],
            [2.]]), tensor(5.)]
    """
    found = _norms_of_units(tensors, units, wide=False)
    on_host = [i for i, norms in enumerate(found) if norms.is_cpu]  # reading them there waits for nothing
    if on_host and not bool(torch.cat([found[i].flatten() for i in on_host]).isfinite().all()):
        again = _norms_of_units([tensors[i] for i in on_host], [units[i] for i in on_host], wide=True)
        for i, norms in zip(on_host, again, strict=True):
            found[i] = norms
    return [
        over_shards(norms, tensor, at, inside=False) for norms, tensor, at in zip(found, tensors, units, strict=True)
    ]


def _norms_of_units(tensors: Sequence[Tensor], units: Sequence[Units], *, wide: bool) -> list[Tensor]:
    found: dict[int, Tensor] = {}
    single: list[tuple[int, Tensor]] = []  # one unit each: all of them in one call
    for i, (tensor, at) in enumerate(zip(tensors, units, strict=True)):
        if tensor.layout is not torch.strided:
            found[i] = _norms_of_rows(tensor, at, wide=wide)
            continue
        whole: Any = tensor
        local = whole.to_local() if hasattr(tensor, "to_local") else tensor
        if at.axes or not local.numel():
            found[i] = unit_norms(in_groups(local, at), dim=at.axes, keepdim=True, wide=wide or not local.is_cpu)
        else:
            single.append((i, local))
    totals = norms([local for _, local in single], exact=wide) if single else torch.zeros(0)
    for (i, local), total in zip(single, totals.unbind(), strict=True):
        found[i] = total if total.device == local.device else total.to(local.device, non_blocking=True)
    return [found[i] for i in range(len(tensors))]


def _norms_of_rows(tensor: Tensor, at: Units, *, wide: bool) -> Tensor:
    if tensor.layout is not torch.sparse_coo or at.axes != (0,):
        raise ValueError(f"AGC needs dense gradients, or sparse ones in COO layout by rows, got {tensor.layout}.")
    whole = tensor.coalesce()
    values = whole.values()
    rows = unit_norms(values.reshape(len(values), -1), wide=wide or not values.is_cpu)
    powers = rows.new_zeros(tensor.shape[0]).index_add(0, whole.indices()[0], rows.square())
    return powers.sqrt().reshape(-1, *[1] * (tensor.ndim - 1))


def in_groups(local: Tensor, units: Units) -> Tensor:
    """View a tensor with its first axis split into the groups of its units."""
    return local.unflatten(0, (units.groups, -1)) if units.groups > 1 else local


def over_shards(norms: Tensor, tensor: Any, units: Units, *, inside: bool) -> Tensor:
    """Join the norms of shards: of those that split single units, or of those that hold different units.

    Args:
        norms: of what this rank holds.
        tensor: whose placements are read; a plain one has all.
        units: where they lie.
        inside: whether the shards hold different units.
    """
    if not hasattr(tensor, "placements"):
        return norms
    if any(placement.is_partial() for placement in tensor.placements):
        raise ValueError("AGC needs gradients that are summed up, got a DTensor with a Partial placement.")
    over = [
        axis
        for axis, placement in enumerate(tensor.placements)
        if placement.is_shard() and (placement.dim in units.axes) == inside
    ]
    if not over:
        return norms
    import torch.distributed as dist

    powers = norms.double().square()
    for axis in over:
        dist.all_reduce(powers, group=tensor.device_mesh.get_group(axis))
    return powers.sqrt().to(norms.dtype)
