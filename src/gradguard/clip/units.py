"""The units of a weight: the slices that one neuron, filter or token owns.

Shape legend: U = number of units.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

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
        ValueError: the weight of a ConvTranspose with groups is sharded.
    """
    if param.ndim < 2:
        return Units(())
    if isinstance(owner, TRANSPOSED) and param is owner.weight:
        if owner.groups == 1:
            return Units((1,))
        if hasattr(param, "placements"):
            raise ValueError(
                f"AGC can't tell the units of a sharded ConvTranspose with {owner.groups} groups. Put it into exclude=."
            )
        return Units((0, 2), owner.groups)
    return Units((0,))


def local_unit_norms(tensor: Tensor, units: Units) -> Tensor:
    """2-norm of each unit, in a shape that broadcasts against the tensor (split into its groups).

    Args:
        tensor: dense; of a DTensor, the units that this rank holds a part of, each with its whole norm.
        units: where they lie.

    Returns:
        float32, or float64 for float64 and complex128.

    Host sync: none. Mutates: nothing.

    >>> local_unit_norms(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), Units((0,)))
    tensor([[5.],
            [2.]])
    """
    local: Any = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    local = in_groups(local, units)
    others = tuple(axis for axis in range(local.ndim) if axis not in units.axes)
    wide = local.dtype in (torch.float64, torch.complex128)
    # A complex norm comes in the real type; float16 squares leave its range, so all smaller ones are summed in float32.
    dtype = None if local.is_complex() else torch.float64 if wide else torch.float32
    norms: Tensor = torch.linalg.vector_norm(local, 2, dim=others, keepdim=True, dtype=dtype)
    return _whole(norms, tensor, units, inside=False)


def in_groups(local: Tensor, units: Units) -> Tensor:
    """View a tensor with its first axis split into the groups of its units."""
    return local.unflatten(0, (units.groups, -1)) if units.groups > 1 else local


def norm_over_units(norms: Tensor, tensor: Tensor, units: Units) -> Tensor:
    """2-norm of a whole tensor from those of the units that this rank holds, a scalar. Host sync: none."""
    whole: Tensor = torch.linalg.vector_norm(norms.double() if norms.device.type != "mps" else norms)
    return _whole(whole, tensor, units, inside=True)


def _whole(norms: Tensor, tensor: Any, units: Units, *, inside: bool) -> Tensor:
    """Join the norms of shards: of those that split single units, or of those that hold different units.

    Args:
        norms: of what this rank holds.
        tensor: whose placements are read; a plain one has all.
        units: where they lie.
        inside: whether the shards hold different units.
    """
    if not hasattr(tensor, "placements"):
        return norms
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
