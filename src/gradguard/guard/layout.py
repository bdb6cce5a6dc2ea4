"""Which parameters an optimizer holds, and what the model calls them once every wrapper is taken off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from gradguard.detect import Layout, Role
from gradguard.names import Known, layer_of


def layout_of(
    optimizer: Optimizer, name: str, known: Mapping[int, Known], trainable: Collection[int], norm_type: float
) -> tuple[tuple[Tensor, ...], Layout]:
    """Distinct parameters of an optimizer that are ``trainable`` (by ``id``), in the order of the model.

    A parameter that no model knows keeps its place in the optimizer as a name, behind all others.

    Raises:
        ValueError: a lazy parameter, which has no shape yet.
    """
    entries: dict[int, tuple[Known, Tensor]] = {}
    for g, group in enumerate(optimizer.param_groups):
        for i, param in enumerate(group["params"]):
            if id(param) in trainable and id(param) not in entries:
                stranger = Known(f"param_groups.{g}.params.{i}", "", _NOWHERE, len(known) + len(entries))
                at = known.get(id(param), stranger)
                if is_lazy(param):
                    raise ValueError(f"Guard needs parameters with a shape, {at.name} is lazy. Run one batch first.")
                entries[id(param)] = (at, param)
    ordered = sorted(entries.values(), key=lambda entry: entry[0].position)
    return tuple(param for _, param in ordered), Layout(
        name,
        tuple(at.name for at, _ in ordered),
        tuple(layer_of(at) for at, _ in ordered),
        tuple(param.numel() for _, param in ordered),
        tuple(_role(at, param) for at, param in ordered),
        norm_type,
        max((torch.finfo(param.dtype).eps for _, param in ordered), default=0.0),
    )


_NOWHERE = nn.Module()


def _role(at: Known, param: Tensor) -> Role:
    if isinstance(at.module, nn.Embedding | nn.EmbeddingBag) or at.module is _NOWHERE:
        return Role.OTHER
    if param.ndim >= 2:
        return Role.WEIGHT
    beside_a_weight = any(p is not None and p.ndim >= 2 for p in at.module._parameters.values())
    return Role.BIAS if beside_a_weight and "bias" in at.name.rpartition(".")[2] else Role.OTHER


def learning_rates(optimizer: Optimizer, params: Sequence[Tensor]) -> list[float]:
    """Give the learning rate of each parameter; NaN for one that lies on a device, where it would have to be read."""
    rates = {id(p): group.get("lr", 1.0) for group in optimizer.param_groups for p in group["params"]}
    found = (rates.get(id(p), torch.nan) for p in params)
    return [float(rate) if not isinstance(rate, Tensor) or rate.is_cpu else torch.nan for rate in found]
