"""What is planted: changes of weights, batches and learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[nn.Module], Any]


def layers(model: nn.Module) -> list[Any]:
    """Give the linear and convolutional layers."""
    return [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]


def scaled(factor: float, *, last: bool = True) -> Change:
    """Multiply the weights of all layers, or of all but the last."""

    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for layer in layers(model) if last else layers(model)[:-1]:
            layer.weight.mul_(factor)

    return change


def gain(factor: float) -> Change:
    """Draw the hidden weights with a variance of ``factor**2`` over the inputs of a unit; leave the last ones."""

    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for layer in layers(model)[:-1]:
            layer.weight.normal_(std=factor / math.sqrt(layer.weight[0].numel()))

    return change


def normal(std: float) -> Change:
    """Draw all weights with one standard deviation, whatever the layer is."""

    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for layer in layers(model):
            layer.weight.normal_(std=std)

    return change


def constant(value: float) -> Change:
    """Set all weights to a constant, and biases to 0."""

    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for layer in layers(model):
            layer.weight.fill_(value)
            if layer.bias is not None:
                layer.bias.zero_()

    return change


def biased(value: float, which: slice = slice(0, -1)) -> Change:
    """Set the biases of the hidden layers."""

    @torch.no_grad()
    def change(model: nn.Module) -> None:
        for layer in layers(model)[which]:
            layer.bias.fill_(value)

    return change


def corrupted(first: int, last: int, factor: float) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Multiply the inputs of some steps, and shuffle their targets."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return (x * factor, y[torch.randperm(len(y))]) if first <= step <= last else (x, y)

    return change


def not_a_number(at: int) -> Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Put a NaN into the inputs of one step."""

    def change(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if step == at:
            x = x.clone()
            x[0] = math.nan
        return x, y

    return change


def cosine(steps: int = 600, warmup: int = 0) -> Callable[[int], float]:
    """Let the learning rate fall to zero, after it has risen."""
    return lambda step: (
        step / warmup if step < warmup else 0.5 + 0.5 * math.cos(math.pi * (step - warmup) / (steps - warmup))
    )


def staircase(*edges: int, factor: float = 0.1) -> Callable[[int], float]:
    """Multiply the learning rate at some steps."""
    return lambda step: factor ** sum(step >= edge for edge in edges)


def burst(steps: int, factor: float) -> Callable[[int], float]:
    """Make the first steps too large."""
    return lambda step: factor if step <= steps else 1.0
