"""Which parameters an optimizer holds, and what the model calls them once every wrapper is taken off."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from gradguard.detect import Layout, Role

# Children that a wrapper hangs its module under, with the wrappers that use a name so common that it proves nothing.
WRAPPED = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_forward_module", "_checkpoint_wrapped_module"})
WRAPPERS_OF_MODULE = frozenset({"DistributedDataParallel", "DataParallel", "AveragedModel"})
REFUSED = {
    "FullyShardedDataParallel": "FSDP1 flattens parameters, so that no rank can tell their norms. "
    "Shard with torch.distributed.fsdp.fully_shard (FSDP2).",
    "DeepSpeedEngine": "DeepSpeed keeps gradients outside .grad. Watch the loss through its own engine instead.",
}


class Known(NamedTuple):
    """A parameter as the model knows it."""

    name: str
    layer: str
    module: nn.Module
    position: int


def known_parameters(models: Mapping[str, nn.Module]) -> dict[int, Known]:
    """All parameters of the models by ``id``, in the order of registration, each under its first name.

    Raises:
        ValueError: a model is wrapped in a way under which norms would be silently wrong.
    """
    known: dict[int, Known] = {}
    for prefix, model in models.items():
        for path, module in _modules(model, prefix, set()):
            for name, param in module._parameters.items():
                if param is not None and id(param) not in known:
                    full = f"{path}.{name}" if path else name
                    known[id(param)] = Known(full, path, module, len(known))
    return known


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
        tuple(_layer(at) for at, _ in ordered),
        tuple(param.numel() for _, param in ordered),
        tuple(_role(at, param) for at, param in ordered),
        norm_type,
        max((torch.finfo(param.dtype).eps for _, param in ordered), default=0.0),
    )


_NOWHERE = nn.Module()


def _modules(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    kinds = {cls.__name__ for cls in type(module).__mro__}
    for kind in kinds & REFUSED.keys():
        raise ValueError(f"Guard cannot measure a {kind}: {REFUSED[kind]}")
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in module._modules.items():
        if child is None:
            continue
        wrapped = name in WRAPPED or (name == "module" and bool(kinds & WRAPPERS_OF_MODULE))
        yield from _modules(child, path if wrapped else f"{path}.{name}" if path else name, seen)


def _layer(at: Known) -> str:
    """Name the layer: the module, or, in a stacked recurrent one, ``lstm.l0`` for what belongs to its first layer."""
    stacked = re.search(r"_(l\d+)(_reverse)?$", at.name)
    return f"{at.layer}.{stacked[1]}".lstrip(".") if stacked else at.layer


def _role(at: Known, param: Tensor) -> Role:
    if isinstance(at.module, nn.Embedding | nn.EmbeddingBag) or at.module is _NOWHERE:
        return Role.OTHER
    if param.ndim >= 2:
        return Role.WEIGHT
    beside_a_weight = any(p is not None and p.ndim >= 2 for p in at.module._parameters.values())
    return Role.BIAS if beside_a_weight and "bias" in at.name.rpartition(".")[2] else Role.OTHER
