"""Which parameters an optimizer should make smaller: matrices, and nothing else."""

from __future__ import annotations

from typing import Any

from torch import nn

from gradguard.arguments import number

OTHERS = ("gain", "bias")  # by name: of the steps of a sequence together, they have two dimensions


def weight_decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Sort the parameters of a module into two groups for an optimizer: matrices with weight decay, others without.

    Raises:
        ValueError: ``weight_decay`` is below 0.
        TypeError: it is no number.
    """
    decay = number(type(module).__name__, "weight_decay", weight_decay, least=0.0)
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, param in module.named_parameters():
        is_matrix = param.dim() > 1 and not any(part.startswith(OTHERS) for part in name.split("."))
        (matrices if is_matrix else others).append(param)
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
