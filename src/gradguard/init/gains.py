"""What an activation does to the size of what goes through it, and what weights before it make up for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Curve = Callable[..., Tensor]
FEED_FORWARD = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Activation(NamedTuple):
    """What follows a layer.

    Attributes:
        name: as ``torch.nn.functional`` has it; "linear" for none.
        rule: ``"xavier"`` for what is odd or linear around 0, ``"kaiming"`` for what cuts off one side.
        gain: of the weights before it.
    """

    name: str
    rule: str
    gain: float

    def std(self, layer: nn.Module) -> float:
        """Give the standard deviation of a layer's weights."""
        into, out = fans(layer)
        return self.gain / math.sqrt(max(into if self.rule == "kaiming" else (into + out) / 2, 1e-30))


LINEAR = Activation("linear", "xavier", 1.0)
_XAVIER = {"tanh": 5 / 3, "sigmoid": 1.0, "hardsigmoid": 1.0}
_SLOPES = {"relu": 0.0, "leaky_relu": 0.01, "_prelu_kernel": 0.25, "rrelu_with_noise": 11 / 48, "threshold": 0.0}
_CURVES: dict[str, Curve] = {
    "gelu": functional.gelu,
    "silu": functional.silu,
    "mish": functional.mish,
    "hardswish": functional.hardswish,
    "hardtanh": functional.hardtanh,
    "softplus": functional.softplus,
    "celu": functional.celu,
    "log_sigmoid_forward": functional.logsigmoid,
    "glu": lambda z: z.sigmoid(),  # the other half comes in as it is
}


def activation_of(op: str, numbers: tuple[float, ...]) -> Activation | None:
    """Say which activation an operation is; None for none.

    >>> activation_of("relu", ())
    Activation(name='relu', rule='kaiming', gain=1.4142135623730951)
    """
    if op in ("clamp_min", "clamp") and numbers == (0.0,):
        op = "relu"
    if op == "clamp" and len(numbers) == 2:
        op = "hardtanh"
    if op == "threshold" and numbers not in ((0.0, 0.0), ()):
        return None
    if op in _XAVIER:
        return Activation(op, "xavier", _XAVIER[op])
    if op in _SLOPES:
        slope = numbers[0] if numbers and op in ("leaky_relu", "_prelu_kernel") else _SLOPES[op]
        if op == "rrelu_with_noise" and len(numbers) >= 2:
            slope = sum(numbers[:2]) / 2
        name = {"_prelu_kernel": "prelu", "rrelu_with_noise": "rrelu"}.get(op, op)
        return Activation(name, "kaiming", math.sqrt(2.0 / (1.0 + slope**2)))
    if op == "elu":
        alpha, scale = (*numbers, 1.0, 1.0)[:2]
        name = "selu" if scale != 1.0 else "elu"
        return Activation(name, "kaiming", 1.0 if name == "selu" else gain_of(lambda z: functional.elu(z, alpha)))
    if op in _CURVES:
        curve = _CURVES[op]
        takes = numbers[:2] if op in ("hardtanh", "celu", "softplus") else ()
        return Activation(op.removesuffix("_forward"), "kaiming", gain_of(lambda z: curve(z, *takes)))
    return None


def gain_of(curve: Curve) -> float:
    r"""Give the gain that keeps the second moment: :math:`1 / \sqrt{E f(z)^2}` with :math:`z \sim \mathcal{N}(0, 1)`.

    >>> round(gain_of(functional.relu), 6)
    1.414214
    """
    z = torch.linspace(-12.0, 12.0, 48001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(curve(z).square() * density, z) ** -0.5)


def fans(layer: nn.Module) -> tuple[float, float]:
    """Say how many inputs an output of a Linear or Conv sums up, and to how many outputs an input goes."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    assert isinstance(layer, nn.modules.conv._ConvNd), type(layer)
    field = math.prod(layer.kernel_size) / layer.groups
    into, out = layer.in_channels * field, layer.out_channels * field
    apart = math.prod(layer.stride)
    return (into / apart, out) if isinstance(layer, _TRANSPOSED) else (into, out / apart)
