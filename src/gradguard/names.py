"""What a model calls its parameters once every wrapper is taken off."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from torch import nn

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
    for path, module in named_modules(models):
        for name, param in module._parameters.items():
            if param is not None and id(param) not in known:
                full = f"{path}.{name}" if path else name
                known[id(param)] = Known(full, path, module, len(known))
    return known


def layer_of(known: Known) -> str:
    """Name the layer: the module, or, in a stacked recurrent one, ``lstm.l0`` for what belongs to its first layer."""
    stacked = re.search(r"_(l\d+)(_reverse)?$", known.name)
    return f"{known.layer}.{stacked[1]}".lstrip(".") if stacked else known.layer


def named_modules(models: Mapping[str, nn.Module]) -> Iterator[tuple[str, nn.Module]]:
    """Go through all modules of the models, wrappers left out of their paths; one that two models share comes twice.

    Raises:
        ValueError: a model is wrapped in a way under which norms would be silently wrong.
    """
    for prefix, model in models.items():
        yield from _modules(model, prefix, set())


def canonical(name: str) -> str:
    """Take the wrappers off a name that ``named_parameters`` gave.

    >>> canonical("_orig_mod.encoder._checkpoint_wrapped_module.weight")
    'encoder.weight'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPED)


def _modules(module: nn.Module, path: str, seen: set[int]) -> Iterator[tuple[str, nn.Module]]:
    kinds = {cls.__name__ for cls in type(module).__mro__}
    for kind in kinds & REFUSED.keys():
        raise ValueError(f"GradGuard can't look into a {kind}: {REFUSED[kind]}")
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, child in module._modules.items():
        if child is None:
            continue
        wrapped = name in WRAPPED or (name == "module" and bool(kinds & WRAPPERS_OF_MODULE))
        yield from _modules(child, path if wrapped else f"{path}.{name}" if path else name, seen)
