"""New values of weights, worked out on copies and written all at once: an error leaves every weight as it was."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradguard.errors import GradGuardWarning
from gradguard.init.changes import Change, Changes


@final
class Draft:
    """Copies of weights, to be changed in place and then written.

    A weight is what the module computes with, however it is stored: under a parametrization or weight normalisation,
    sharded over devices, in half precision. The copy is whole, and in float32 at least.

    Args:
        who: the initialiser, for error messages.
    """

    def __init__(self, who: str) -> None:
        self.who = who
        self._copies: dict[tuple[nn.Module, str], Tensor] = {}

    def __call__(self, module: nn.Module, name: str) -> Tensor:
        """Give the copy of a weight, the same one each time."""
        for other, same in self._copies:  # tied weights have one copy
            if _stored(other, same) is not None and _stored(other, same) is _stored(module, name):
                return self._copies[other, same]
        key = module, name
        if key not in self._copies:
            saved = Saved([module], parameters=False) if parametrize.is_parametrized(module, name) else None
            self._copies[key] = wide_copy(getattr(module, name))
            if saved is not None:  # spectral normalisation takes a step at each look
                saved.restore()
        return self._copies[key]

    def write(self) -> None:
        """Write all copies.

        Raises:
            ValueError: a weight is computed in a way that can't be turned round; none is changed then.
        """
        saved = Saved(module for module, _ in self._copies)
        try:
            for (module, name), value in self._copies.items():
                if not _write(module, name, value) or not _holds(getattr(module, name), value):
                    raise ValueError(
                        f"{self.who} can't set {name} of a {type(module).__name__}: it is computed by "
                        f"{_how(module, name)}, which gives something else. Initialise first, then add that."
                    )
        except BaseException:
            saved.restore()
            raise


@final
class Saved:
    """What modules hold in parameters and buffers, to go back to.

    Args:
        modules: with all that is in them.
        parameters: whether parameters are saved, too, and not only buffers.
    """

    def __init__(self, modules: Iterable[nn.Module], *, parameters: bool = True) -> None:
        found = {id(m): m for module in modules for m in module.modules()}.values()
        every: list[Any] = [slots for m in found for slots in ([m._parameters] if parameters else []) + [m._buffers]]
        self._slots = [slots for slots in every if isinstance(slots, dict)]  # a scripted module's take no other tensors
        self._held = [dict(slots) for slots in self._slots]
        tensors = {id(t): t for slots in every for _, t in slots.items() if t is not None}
        self._values = [
            (t, t.data, t.detach().clone()) for t in tensors.values() if not (t.is_meta or nn.parameter.is_lazy(t))
        ]
        self._modules = list(found)

    def restore(self) -> None:
        """Go back; on ``data``, so that a graph whose backward is still to come does not complain."""
        with torch.no_grad():
            for slots, held in zip(self._slots, self._held, strict=True):
                slots.clear()  # a module may have put another tensor in the place of one
                slots.update(held)
            for tensor, storage, value in self._values:
                if tensor.shape != value.shape:
                    tensor.data = storage
                tensor.data.copy_(value)
            for module in self._modules:
                for hook in _weight_norms(module):
                    setattr(module, hook.name, hook.compute_weight(module))


def set_bias_(draft: Draft, module: nn.Module, path: str, value: float, name: str = "bias") -> Changes:
    """Set all of a bias, if the module has one: what was changed."""
    if not has_weight(module, name):
        return Changes()
    bias = draft(module, name)
    before = float(bias.abs().max()) if bias.numel() else 0.0
    bias.fill_(value)
    return Changes([Change(f"{path}.{name}" if path else name, "largest", before, abs(value))])


def has_weight(module: nn.Module, name: str) -> bool:
    """Say whether a module has a weight, without a look at it: spectral normalisation takes a step at each look."""
    stored = module._parameters.get(name), vars(module).get(name)
    return parametrize.is_parametrized(module, name) or any(isinstance(value, Tensor) for value in stored)


def wide_copy(weight: Tensor) -> Tensor:
    """Copy a weight, whole and in float32 at least."""
    whole = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    if whole.is_complex():
        raise ValueError("gradguard.init needs real weights, got complex ones.")
    return whole.detach().to(torch.promote_types(whole.dtype, torch.float32), copy=True)


def warn_of_meta(who: str, names: Iterable[str]) -> None:
    """Say that weights without storage can't be set."""
    found = list(names)
    if found:
        warnings.warn(
            f"{who} set nothing in {', '.join(found)}: the weights are on the meta device. Call it again once "
            "to_empty(device=...) has given them storage.",
            GradGuardWarning,
            stacklevel=4,
        )


@torch.no_grad()
def _write(module: nn.Module, name: str, value: Tensor) -> bool:
    """Set what a module computes with; say whether there is a way."""
    weight = getattr(module, name)
    value = value.to(weight.dtype)
    if parametrize.is_parametrized(module, name):
        parametrizations: Any = module.parametrizations
        kinds = [type(one).__name__ for one in parametrizations[name]]
        if kinds == ["_WeightNorm"] and not value.any():
            parametrizations[name].original0.zero_()  # its length; a direction has none at 0
        else:
            try:
                setattr(module, name, value.to(weight.device))
            except (RuntimeError, NotImplementedError):
                return False  # there is no way back
    elif hook := next((hook for hook in _weight_norms(module) if hook.name == name), None):
        if value.any():
            getattr(module, f"{name}_v").copy_(value)
        getattr(module, f"{name}_g").copy_(torch.norm_except_dim(value, 2, hook.dim))
        setattr(module, name, hook.compute_weight(module))
    elif name not in module._parameters:
        return False  # an attribute that a hook sets anew at each call
    elif hasattr(weight, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor

        weight.copy_(distribute_tensor(value, weight.device_mesh, weight.placements))  # the first rank's, on all
    else:
        weight.copy_(value)
    return True


def _holds(weight: Tensor, value: Tensor) -> bool:
    if hasattr(weight, "full_tensor") or not value.numel():
        return True  # a shard holds what the first rank drew
    off = (wide_copy(weight) - value).abs().max()
    return bool(off <= 64 * torch.finfo(weight.dtype).eps * value.abs().max().clamp(min=1e-30)) or not _finite(value)


def _finite(value: Tensor) -> bool:
    return bool(value.isfinite().all())


def _stored(module: nn.Module, name: str) -> Tensor | None:
    return module._parameters.get(name)


def _weight_norms(module: nn.Module) -> list[nn.utils.weight_norm.WeightNorm]:  # type: ignore[name-defined]  # a module
    """Weight normalisation of the old kind, which is a hook."""
    hooks = module._forward_pre_hooks.values()
    return [hook for hook in hooks if type(hook).__name__ == "WeightNorm"]


def _how(module: nn.Module, name: str) -> str:
    if parametrize.is_parametrized(module, name):
        parametrizations: Any = module.parametrizations
        return " and ".join(type(p).__name__ for p in parametrizations[name])
    return " and ".join(type(hook).__name__ for hook in module._forward_pre_hooks.values()) or "its module"
