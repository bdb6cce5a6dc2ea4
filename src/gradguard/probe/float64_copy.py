"""A copy of a model, and of what it is given, that computes in float64."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.names import WRAPPERS_OF_MODULE, known_parameters
from gradguard.probe.nested_tensors import substituted

WIDE = torch.float64, torch.complex128


def unwrapped(model: nn.Module) -> nn.Module:
    """Take a model out of what compiles it or runs it on several devices.

    Raises:
        ValueError: it is wrapped in a way that leaves no whole parameters.
    """
    while True:
        kind = type(model).__name__
        inner = getattr(model, "_orig_mod", None) if kind == "OptimizedModule" else None
        inner = getattr(model, "module", None) if kind in WRAPPERS_OF_MODULE else inner
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def float64_copy(who: str, model: nn.Module) -> nn.Module:
    """Copy a model and let the copy compute in float64; complex weights become complex128.

    Power iterations of spectral normalisation rest in the copy: its gradient is that of a weight over a norm whose
    vectors stand still.

    Raises:
        TypeError: a scripted module.
        ValueError: weights without storage, without a shape yet, or sharded; a module that can't be copied or refuses
            float64.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(f"{who} needs a model that is not scripted, got a ScriptModule. Check it as it was before.")
    for name, param in _parameters(model):
        if nn.parameter.is_lazy(param):
            raise ValueError(f"{who} needs weights with a shape, but {name} is lazy. Run the model once before.")
        if param.is_meta:
            raise ValueError(f"{who} needs weights with values, but {name} is on the meta device. Call to_empty.")
        if hasattr(param, "full_tensor"):
            raise ValueError(f"{who} needs whole weights, but {name} is a DTensor. Check before you shard it.")
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:  # a weight that a hook computes, as old weight_norm's
                memo[id(value)] = value.detach().clone()
    try:
        made = copy.deepcopy(model, memo)
    except Exception as error:
        raise ValueError(
            f"{who} works on a copy of the model, but copy.deepcopy({type(model).__name__}) failed: {error}. Give what "
            "can't be copied a __deepcopy__, or keep it outside of the model."
        ) from error
    try:
        made._apply(widened)
    except Exception as error:
        raise ValueError(
            f"{who} needs a model that can compute in float64, but {type(model).__name__} can't: {error}. On a device "
            "without float64, give it model.cpu()."
        ) from error
    for name, param in _parameters(made):
        if param.requires_grad and param.dtype not in WIDE:
            raise ValueError(
                f"{who} needs a model that can compute in float64, but {name} stays {param.dtype}. Freeze it, or "
                "leave out what keeps it there."
            )
    for module in made.modules():
        _widen_attributes(module)
        norms: list[Any] = [module, *module._forward_pre_hooks.values()]
        for norm in norms:
            if type(norm).__name__ in ("_SpectralNorm", "SpectralNorm"):
                norm.n_power_iterations = 0
    return made


def float64_batch(batch: Any) -> Any:
    """Copy the tensors in a batch, those that are no integers to float64."""
    return substituted(batch, lambda _, tensor: widened(tensor.detach().clone()))


def widened(tensor: Tensor) -> Tensor:
    """Give a tensor in float64, or in complex128; integers as they are."""
    if tensor.is_complex():
        return tensor.to(torch.complex128)
    return tensor.to(torch.float64) if tensor.is_floating_point() else tensor


def _parameters(model: nn.Module) -> list[tuple[str, Tensor]]:
    params = {id(param): param for param in model.parameters()}
    return [(known.name, params[key]) for key, known in known_parameters({"": model}).items()]


def _widen_attributes(module: nn.Module) -> None:
    """Widen tensors that a module keeps beside its parameters and buffers."""
    slots = vars(module)
    for name, value in list(slots.items()):
        if isinstance(value, Tensor | tuple) or type(value) in (list, dict):
            if name in ("_parameters", "_buffers", "_modules"):
                continue
            slots[name] = substituted(value, lambda _, t: t if isinstance(t, nn.Parameter) else widened(t.detach()))
