"""Modules whose backward is wrong on purpose, and networks with one of them among others that are right."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Product(torch.autograd.Function):
    """x * w, whose gradients are too large by given factors; a factor of NaN gives none at all."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, of_x: float, of_w: float) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.factors = of_x, of_w
        return x * w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, w = ctx.saved_tensors
        of_x, of_w = ctx.factors
        return grad * w * of_x, None if of_w != of_w else (grad * x).sum(0) * of_w, None, None


class Scaled(nn.Module):
    """A block: x + sin(x * w) / 2, in which gradients neither vanish nor explode.

    Args:
        width: of x.
        fault: "weight" and "input": a gradient is 1 % too large; "sign": that of the weight is turned; "none": it is
            missing; "zero": it is 0; "detached": the input is.
    """

    def __init__(self, width: int, fault: str = "") -> None:
        super().__init__()
        self.weight, self.fault = nn.Parameter(torch.rand(width) + 0.5), fault

    def forward(self, x: Tensor) -> Tensor:
        of_x = 1.01 if self.fault == "input" else 1.0
        of_w = {"weight": 1.01, "sign": -1.0, "none": float("nan"), "zero": 0.0}.get(self.fault, 1.0)
        if self.fault == "detached":
            x = x.detach()
        return x + torch.sin(Product.apply(x, self.weight, of_x, of_w)) / 2


class Square(torch.autograd.Function):
    """x², whose first derivative is right, and whose second is too large by factors: by x, and by what comes in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, of_x: float, of_grad: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.factors = of_x, of_grad
        return x**2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _SquareBackward.apply(ctx.saved_tensors[0], grad, *ctx.factors), None, None


class _SquareBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grad: Tensor, of_x: float, of_grad: float) -> Tensor:
        ctx.save_for_backward(x, grad)
        ctx.factors = of_x, of_grad
        return 2 * x * grad

    @staticmethod
    def backward(ctx: Any, twice: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (x, grad), (of_x, of_grad) = ctx.saved_tensors, ctx.factors
        return 2 * grad * twice * of_x, 2 * x * twice * of_grad, None, None


class Squared(nn.Module):
    def __init__(self, width: int, fault: str = "") -> None:
        super().__init__()
        self.weight, self.fault = nn.Parameter(torch.rand(width) + 0.5), fault

    def forward(self, x: Tensor) -> Tensor:
        factors = (1.01 if self.fault == "x" else 1.0), (1.01 if self.fault == "grad" else 1.0)
        return x + Square.apply(torch.sin(x * self.weight), *factors) / 2


def network(at: int, fault: str, blocks: int = 20, kind: Any = Scaled, width: int = 5) -> nn.Sequential:
    return nn.Sequential(*[kind(width, fault if i == at else "") for i in range(blocks)])


def batch(width: int = 5, rows: int = 4) -> tuple[Tensor, Tensor]:
    return torch.randn(rows, width), torch.randn(rows, width)


def loss_of(model: Any, batch: Any) -> Tensor:
    return (model(batch[0]) - batch[1]).square().mean()
