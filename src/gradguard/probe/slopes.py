"""Activation functions as the graph of autograd knows them: where their slope is small, told from what they saved.

Nothing is computed here, and no saved tensor is unpacked that a hook has packed, as activation checkpointing does: that
would run the forward pass again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradguard.gates import gates_of

SMALL = 0.01  # share of the largest slope below which one is small, at the lower end of an activation
FLAT = 0.1  # the same at both ends of a bounded one

# Where the slope falls below SMALL of the largest for good: the roots of f'(x) = -0.01 max f', by bisection to 1e-12.
_GELU = {"none": -3.0216626341, "tanh": -3.0093577396}  # Phi(x) + x phi(x), of which the largest is 1.1289, and tanh's
_SILU = -6.1429157003  # s + x s (1 - s) with s = sigmoid(x), of which the largest is 1.0998
_MISH = -6.1587413097  # of which the largest is 1.0885
_TANH = math.sqrt(1 - FLAT)  # 1 - y^2
_SIGMOID = (1 - math.sqrt(1 - FLAT)) / 2  # 4 y (1 - y)


class Slope(NamedTuple):
    """Where an activation function is flat.

    Attributes:
        name: of the function, as in ``torch.nn.functional``.
        field: what the node has saved that tells it: ``result`` or ``self``, the input.
        low: up to there it is flat; None where it is not flat at its lower end.
        high: from there on it is flat.
        is_bounded: whether it is bounded at both ends: its units saturate. Those of the others fall silent.
        falls_silent: whether they do.
    """

    name: str
    field: str
    low: float | None
    high: float | None = None
    is_bounded: bool = False
    falls_silent: bool = True


def slope_of(node: Any) -> Slope | None:
    """Give what is known of a node of the graph; None where it is no activation function.

    >>> slope_of(torch.relu(torch.ones(1, requires_grad=True)).grad_fn)
    Slope(name='relu', field='result', low=0.0, high=None, is_bounded=False, falls_silent=True)
    """
    known = _KNOWN.get(kind_of(node))
    if known is None or isinstance(node, torch._C._FunctionBase):  # a user's own function may go by any name
        return None
    slope = known(node)
    return slope if slope is not None and hasattr(type(node), f"_raw_saved_{slope.field}") else None


def slope_of_state(layer: nn.Module) -> Slope | None:
    """Give what is known of what a recurrent layer without gates makes: of ``nn.RNN``, ``nn.RNNCell`` and ours.

    >>> slope_of_state(nn.RNN(2, 3, nonlinearity="relu")).name, slope_of_state(nn.LSTM(2, 3))
    ('relu', None)
    """
    named = getattr(layer, "nonlinearity", None)
    return {"tanh": _TANHS, "relu": _RELUS}.get(named) if isinstance(named, str) and gates_of(layer) else None


def kind_of(node: Any) -> str:
    """Give the name of a node's operator, as in ``Relu``."""
    name: str = node.name()
    return name.rpartition("Backward")[0]


def saved(node: Any, field: str) -> Tensor | None:
    """Give a tensor that a node has saved; None where a hook has packed it, or it was overwritten or let go of."""
    raw = getattr(node, f"_raw_saved_{field}")
    if hasattr(raw, "unpack_hook"):
        is_packed = raw.unpack_hook is not None
    else:  # an older torch does not tell
        is_packed = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
    try:
        value = None if is_packed else getattr(node, f"_saved_{field}")
    except RuntimeError:
        return None
    return value.detach() if isinstance(value, Tensor) else None


def _elu(node: Any) -> Slope:
    alpha, scale = float(node._saved_alpha), float(getattr(node, "_saved_scale", 1.0))
    stretch = float(getattr(node, "_saved_input_scale", 1.0 / alpha if alpha else 1.0))  # CELU's is 1 / alpha
    name = "celu" if not hasattr(node, "_saved_scale") else "elu" if scale == 1 else "selu"
    at_zero = alpha * stretch  # slope at the left of 0, over that at its right
    low = 0.0 if at_zero <= SMALL else math.log(SMALL * max(1.0, 1.0 / at_zero)) / stretch
    if hasattr(node, "_saved_self"):
        return Slope(name, "self", low)
    return Slope(name, "result", scale * alpha * math.expm1(low * stretch))


def _leaky_relu(node: Any) -> Slope:
    field = "self" if hasattr(node, "_saved_self") else "result"
    return Slope("leaky_relu", field, 0.0 if abs(node._saved_negative_slope) < SMALL else None, falls_silent=False)


def _hardtanh(node: Any) -> Slope:
    low, high = float(node._saved_min_val), float(node._saved_max_val)
    if low == 0:  # relu6: a ReLU that has a ceiling, too
        return Slope("relu6", "self", low, high)
    return Slope("hardtanh", "self", low, high, is_bounded=True, falls_silent=False)


def _clamp(node: Any) -> Slope | None:
    low, high = node._saved_min, getattr(node, "_saved_max", None)
    is_relu = isinstance(low, int | float) and low == 0 and high is None  # either may be a tensor
    return Slope("relu", "self", 0.0) if is_relu else None


def _threshold(node: Any) -> Slope | None:
    # In place it saves its result alone, which may be any number where it is flat.
    return Slope("threshold", "self", float(node._saved_threshold)) if hasattr(node, "_saved_self") else None


def _as(name: str, field: str, low: float | None, high: float | None = None) -> Callable[[Any], Slope]:
    bounded = high is not None
    slope = Slope(name, field, low, high, is_bounded=bounded, falls_silent=low is not None and not bounded)
    return lambda node: slope


def _rrelu(node: Any) -> Slope:
    return Slope("rrelu", "self" if hasattr(node, "_saved_self") else "result", None, falls_silent=False)


_RELUS = Slope("relu", "result", 0.0)
_TANHS = Slope("tanh", "result", -_TANH, _TANH, is_bounded=True, falls_silent=False)
_KNOWN: dict[str, Callable[[Any], Slope | None]] = {
    "Relu": _as("relu", "result", 0.0),
    "Threshold": _threshold,
    "Clamp": _clamp,
    "ClampMin": _clamp,
    "LeakyRelu": _leaky_relu,
    "PreluKernel": _as("prelu", "self", None),
    "RreluWithNoise": _rrelu,
    "Elu": _elu,
    "Celu": _elu,
    "Gelu": lambda node: Slope("gelu", "self", _GELU[node._saved_approximate]),
    "Silu": _as("silu", "self", _SILU),
    "Mish": _as("mish", "self", _MISH),
    "Hardswish": _as("hardswish", "self", -3.0),
    "Softplus": lambda node: Slope("softplus", "self", math.log(SMALL / (1 - SMALL)) / float(node._saved_beta)),
    "Tanh": _as("tanh", "result", -_TANH, _TANH),
    "Sigmoid": _as("sigmoid", "result", _SIGMOID, 1 - _SIGMOID),
    "Hardtanh": _hardtanh,
    "Hardsigmoid": _as("hardsigmoid", "self", -3.0, 3.0),
}
