"""Which modules of a model are layers with units of their own, and along which axis of a tensor those units lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.utils import parametrize

from gradguard.gates import gates_of
from gradguard.names import named_modules

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, *([nn.RMSNorm] if hasattr(nn, "RMSNorm") else []))
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)


def is_layer(module: nn.Module) -> bool:
    """Whether it makes units with a matrix or filters of its own: a linear layer, a convolution, a recurrent module.

    Embeddings and norms are none, nor are modules that hold other layers, but for ``nn.MultiheadAttention``.

    >>> is_layer(nn.Conv2d(3, 8, 3)), is_layer(nn.LSTM(3, 8)), is_layer(nn.LayerNorm(8)), is_layer(nn.Embedding(3, 8))
    (True, True, False, False)
    """
    if isinstance(module, (*_NORMS, *_EMBEDDINGS, torch.jit.ScriptModule)) or _is_unborn(module):
        return False
    if isinstance(module, nn.MultiheadAttention) or gates_of(module) is not None:
        return True
    if any(name != "parametrizations" for name in module._modules):
        return False
    own = {name: param for name, param in module._parameters.items() if param is not None and param.ndim > 1}
    given = list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]  # a ModuleDict
    by_name = any("weight" in name for name in (*own, *given))
    return by_name or any(min(param.shape) > 1 for param in own.values())  # "kernel", "W": places have a 1 in front


def is_norm(module: nn.Module) -> bool:
    """Whether it gives its units a mean and a spread: what comes out says nothing of the layer below."""
    return isinstance(module, _NORMS) and not _is_unborn(module)


def is_embedding(module: nn.Module) -> bool:
    """Whether it looks vectors up."""
    return isinstance(module, _EMBEDDINGS)


def layers_of(models: Mapping[str, nn.Module], *, compiled: bool = False) -> Iterator[tuple[str, nn.Module]]:
    """Go through layers, norms and embeddings of models, each under its first name; those of compiled parts if so.

    The layer of a ``nn.MultiheadAttention`` goes by the name of its ``out_proj``, which makes its output.
    """
    left_out = set() if compiled else {id(part) for model in models.values() for part in _compiled_parts(model)}
    for path, module in named_modules(models):
        if id(module) not in left_out and (is_layer(module) or is_norm(module) or is_embedding(module)):
            left_out.add(id(module))
            if isinstance(module, nn.MultiheadAttention):
                left_out.add(id(module.out_proj))  # is never called itself
                path = f"{path}.out_proj" if path else "out_proj"
            yield path, module


def axis_of(module: nn.Module, output: Tensor) -> int:
    """Along which axis the units of a layer or norm lie, in what it gives: channels at 1 (0 without a batch).

    >>> axis_of(nn.Conv1d(3, 8, 1), torch.zeros(8, 20)), axis_of(nn.Linear(3, 8), torch.zeros(4, 5, 8))
    (0, 2)
    """
    if isinstance(module, _ConvNd):
        return output.ndim - len(module.kernel_size) - 1
    if isinstance(module, _NormBase | nn.GroupNorm) and output.ndim > 1:
        channels = module.num_features if isinstance(module, _NormBase) else module.num_channels
        return 1 if output.shape[1] == channels else 0
    filters = module._parameters.get("weight")
    if filters is not None and filters.ndim > 2:  # a convolution of somebody's own
        channels_at = output.ndim - filters.ndim + 1
        if channels_at in (0, 1) and output.shape[channels_at] == filters.shape[0]:
            return channels_at
    return output.ndim - 1


def _is_unborn(module: nn.Module) -> bool:
    return isinstance(module, LazyModuleMixin) and module.has_uninitialized_params()


def is_compiled(module: nn.Module) -> bool:
    """Whether ``torch.compile`` was asked to compile it as a whole."""
    return type(module).__name__ == "OptimizedModule" or getattr(module, "_compiled_call_impl", None) is not None


def _compiled_parts(model: nn.Module) -> Iterator[nn.Module]:
    for module in model.modules():
        if is_compiled(module):
            yield from module.modules()
