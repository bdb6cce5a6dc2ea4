"""What recurrent modules refuse, with the exception types of ``torch.nn.LSTM`` and more to go by."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from gradguard.errors import GradGuardWarning

if TYPE_CHECKING:
    from gradguard.nn.base import AbstractRecurrent
    from gradguard.nn.cell import AbstractCell
    from gradguard.nn.sequence import Form


def sizes(who: str, **values: Any) -> None:
    """Sizes are integers above 0."""
    for name, value in values.items():
        if not isinstance(value, int):
            raise TypeError(f"{who} needs {name} to be an int, got {value!r}.")
        if value <= 0:
            raise ValueError(f"{who} needs {name} > 0, got {value}.")


def flags(who: str, **values: Any) -> None:
    """Flags are booleans: a 1 is an argument in the wrong place."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise TypeError(f"{who} needs {name} to be a bool, got {value!r}.")


def dropout(who: str, value: Any, num_layers: int) -> None:
    """A share of outputs, which the last layer's are none of."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0 <= float(value) <= 1:
        raise ValueError(f"{who} needs dropout in [0, 1], the share of outputs that become 0, got {value!r}.")
    if float(value) > 0 and num_layers == 1:
        message = f"{who}(dropout={value}) drops nothing: it acts between layers, and num_layers is 1."
        warnings.warn(message, GradGuardWarning, stacklevel=4)


def projection(who: str, proj_size: Any, hidden_size: int) -> None:
    """A projection makes h smaller."""
    if not isinstance(proj_size, int):
        raise TypeError(f"{who} needs proj_size to be an int, got {proj_size!r}.")
    if not 0 <= proj_size < hidden_size:
        raise ValueError(
            f"{who} needs 0 <= proj_size < hidden_size = {hidden_size}, got {proj_size}; 0 is for no projection."
        )


def sequence(module: AbstractRecurrent, value: Any) -> None:
    """A sequence is a tensor of 2 or 3 dimensions, or packed."""
    who = type(module).__name__
    if isinstance(value, PackedSequence):
        return
    if not isinstance(value, Tensor):
        raise TypeError(f"{who} needs input to be a tensor or a PackedSequence, got {type(value).__name__}.")
    if value.dim() not in (2, 3):
        raise ValueError(f"{who}: Expected input to be 2D or 3D, got {value.dim()}D instead.")


def autocast_dtype(like: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks of a product with that tensor, or None."""
    device = like.device.type
    # Older Dynamos can't trace the first question; where something is compiled, there is autocast.
    is_known = torch.compiler.is_compiling() or torch.amp.is_autocast_available(device)
    if not is_known or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device) if like.dtype in (torch.float32, torch.bfloat16, torch.float16) else None


def rows(module: AbstractRecurrent, x: Tensor, weight: Tensor) -> None:
    """Width, dtype and device of the input are those of the weights."""
    who = type(module).__name__
    if x.shape[-1] != module.input_size:
        raise RuntimeError(
            f"{who}: input.size(-1) must be equal to input_size. Expected {module.input_size}, got {x.shape[-1]}."
        )
    _like_the_weights(who, x, weight, ValueError)


def states(
    module: AbstractRecurrent, hx: Any, x: Tensor, form: Form, shapes: Sequence[tuple[int, ...]]
) -> Sequence[Tensor]:
    """States before the first step: as many as the cell has, and each as it should be."""
    who, n = type(module).__name__, len(shapes)
    given = (hx,) if n == 1 else hx
    if not isinstance(given, tuple | list) or len(given) != n:
        raise RuntimeError(f"{who} needs hx to be {n} tensors, got {_described(hx)}.")
    for i, (state, shape) in enumerate(zip(given, shapes, strict=True)):
        name = "hx" if n == 1 else f"hx[{i}]"
        _is_tensor(who, name, state)
        expected = shape if form.batched else (shape[0], shape[2])
        if state.dim() != len(expected):
            kind = "batched 3-D" if form.batched else "unbatched 2-D"
            raise RuntimeError(
                f"{who}: For {kind} input, {name} should also be {len(expected)}-D, of the shape {expected}, but got a "
                f"{state.dim()}-D tensor."
            )
        if tuple(state.shape) != expected:
            raise RuntimeError(f"{who}: Expected {name} size {expected}, got {tuple(state.shape)}.")
        _state(who, name, state, x, wide=i > 0)
    return given


def step(module: AbstractCell, x: Tensor, hx: Any) -> None:
    """Input and states of one step."""
    who, widths = type(module).__name__, module.recurrence.widths(module.hidden_size, 0)
    _is_tensor(who, "input", x)
    if x.dim() not in (1, 2):
        raise ValueError(f"{who}: Expected input to be 1D or 2D, got {x.dim()}D instead.")
    if x.shape[-1] != module.input_size:
        raise RuntimeError(f"{who} needs input.size(-1) to be input_size = {module.input_size}, got {x.shape[-1]}.")
    _like_the_weights(who, x, getattr(module, module._names[0]), RuntimeError)
    if hx is None:
        return
    given = (hx,) if len(widths) == 1 else hx
    if not isinstance(given, tuple | list):
        raise TypeError(f"{who} needs hx to be {len(widths)} tensors, got {_described(hx)}.")
    if len(given) != len(widths):
        raise RuntimeError(f"{who} needs hx to be {len(widths)} tensors, got {_described(hx)}.")
    for i, (state, width) in enumerate(zip(given, widths, strict=True)):
        name, expected = "hx" if len(widths) == 1 else f"hx[{i}]", (*x.shape[:-1], width)
        _is_tensor(who, name, state)
        if state.dim() not in (1, 2):
            raise ValueError(f"{who}: Expected {name} to be 1D or 2D, got {state.dim()}D instead.")
        if tuple(state.shape) != expected:
            raise RuntimeError(f"{who} needs {name} of the shape {expected}, got {tuple(state.shape)}.")
        _state(who, name, state, x, wide=i > 0)


def _state(who: str, name: str, state: Tensor, x: Tensor, *, wide: bool) -> None:
    """Dtype and device of a state are the input's; a cell state may be wider, and under autocast both may."""
    allowed = {x.dtype, torch.float32} if wide and x.dtype != torch.float64 else {x.dtype}
    if state.dtype not in allowed and (autocast_dtype(x) is None or autocast_dtype(state) is None):
        raise RuntimeError(f"{who} needs {name} of the input's dtype {x.dtype}, got {state.dtype}.")
    if state.device != x.device:
        raise RuntimeError(f"{who} needs {name} on the input's device {x.device}, got {state.device}.")


def _is_tensor(who: str, name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{who} needs {name} to be a tensor, got {type(value).__name__}.")


def _like_the_weights(who: str, x: Tensor, weight: Tensor, error: type[Exception]) -> None:
    if x.dtype != weight.dtype and (autocast_dtype(x) is None or autocast_dtype(weight) is None):
        raise error(
            f"{who}: input dtype ({x.dtype}) does not match weight dtype ({weight.dtype}). Convert the input, "
            f"input.to({weight.dtype}), or the module, module.to({x.dtype})."
        )
    if x.device != weight.device:
        raise RuntimeError(
            f"{who} needs input on the weights' device {weight.device}, got {x.device}. Move it there, "
            f"input.to({str(weight.device)!r})."
        )


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one tensor of the shape {tuple(value.shape)}"
    return f"{len(value)} of them" if isinstance(value, tuple | list) else type(value).__name__
