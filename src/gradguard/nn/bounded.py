"""A weight that never leaves an interval around 0, whatever a training loop does with its parameter.

A pass computes with the nearest value that is allowed; so the bound holds under AMP, for averages of weights, for
shards, for what was loaded. Stored values are brought back, too, where that disturbs nobody: before a forward pass in
training, which is the paper's projection after each step, and where weights are saved or loaded.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, final

import torch
from torch import Tensor, nn

DTYPES = torch.float64, torch.float32, torch.bfloat16, torch.float16
# Torch 2.6 can't say whether it exports: there, all that is captured goes the way of what is exported.
is_exporting: Callable[[], bool] = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


class Captured(torch.autograd.Function):
    """:class:`Bounded` without forward mode, which Dynamo would refuse."""

    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, bound: float) -> Tensor:
        """Give the nearest value that is allowed."""
        return u.clamp(-bound, bound)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, float], output: Tensor) -> None:
        """Keep where it was."""
        u, ctx.bound = inputs
        ctx.save_for_backward(u)
        ctx.save_for_forward(u)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> tuple[Tensor | None, None]:
        """Let all through but what would push an entry that is outside further out.

        A clamp's own gradient is 0 outside: there an entry would stay for ever.
        """
        if grad is None:
            return None, None
        (u,) = ctx.saved_tensors
        return torch.where((u.abs() > ctx.bound) & (u * grad < 0), 0.0, grad), None


@final
class Bounded(Captured):
    """The nearest value in an interval, with the gradient of a projected descent."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor | None, _: None) -> Tensor | None:
        """Forward mode has no direction of descent: a tangent is that of the clamp."""
        if tangent is None:
            return None
        (u,) = ctx.saved_tensors
        return torch.where(u.abs() > ctx.bound, 0.0, tangent)


nearest: Callable[[Tensor, float], Tensor] = Bounded.apply
nearest_captured: Callable[[Tensor, float], Tensor] = Captured.apply


def bounds_of(value: float) -> dict[torch.dtype, str]:
    """Write down the largest number of each dtype that is not above a value: Dynamo takes text for what it is.

    A number it takes for a variable.
    """
    return {dtype: repr(rounded_down(value, dtype)) for dtype in DTYPES}


def bounded(u: Tensor, bounds: Mapping[torch.dtype, str]) -> Tensor:
    """Give the value that a pass computes with."""
    bound = float(bounds[u.dtype])
    if not torch.compiler.is_compiling():
        return nearest(u, bound)
    if is_exporting():  # which forgets the gradient of a Function
        return (u - u.detach()) + u.detach().clamp(-bound, bound)
    return nearest_captured(u, bound)


def rounded_down(value: float, dtype: torch.dtype) -> float:
    """Give the largest number of a dtype that is not above a value > 0."""
    info = torch.finfo(dtype)
    mantissa, exponent = math.frexp(value)
    unit = info.eps / 2
    return min(math.ldexp(math.floor(mantissa / unit) * unit, exponent), info.max)


def keep_bounded(module: nn.Module) -> None:
    """Have the recurrent vectors of a module brought back; its ``recurrence`` has the ``bounds`` of each dtype."""
    module.register_forward_pre_hook(_before_forward)
    module.register_state_dict_pre_hook(_bring_back_)
    module.register_load_state_dict_post_hook(_bring_back_)


def _before_forward(module: nn.Module, _: Any) -> None:
    is_transformed = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    if module.training and torch.is_grad_enabled() and not is_transformed:
        _bring_back_(module)


def _bring_back_(module: nn.Module, *_: Any) -> None:
    """Work on ``data``: a graph that saved a weight, of a pass whose backward is still to come, must not complain."""
    bounds: dict[torch.dtype, str] = module.recurrence.bounds  # type: ignore[union-attr, assignment]  # a module of ours
    for name, param in module._parameters.items():
        if name.startswith("weight_hh") and isinstance(param, nn.Parameter) and not param.is_inference():
            bound = float(bounds[param.dtype])
            param.data.clamp_(-bound, bound)
