"""The optimizers of a Trainer, each under a name that a reader of the logs knows."""

from __future__ import annotations

from typing import Any

from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from gradguard.guard.hooks import innermost
from gradguard.names import known_parameters


def named_optimizers(trainer: Any, module: Any) -> dict[str, Optimizer]:
    """Name each optimizer after the one child of the module that it trains, as ``generator``; else by its position.

    Lightning's stand-in for "no optimizer" is left out.
    """
    optimizers = [innermost(one) for one in trainer.optimizers if type(one).__name__ != "_MockOptimizer"]
    names = [_child(optimizer, module) for optimizer in optimizers]
    if len(optimizers) == 1:
        return {"optimizer": optimizers[0]}
    unique = all(names) and len(set(names)) == len(names)
    return {
        name if unique and name else str(i): one for i, (name, one) in enumerate(zip(names, optimizers, strict=True))
    }


def is_measurable(optimizer: Optimizer) -> bool:
    """Say whether it has something to train, in a shape that is known."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    return any(param.requires_grad for param in params) and not any(map(is_lazy, params))


def _child(optimizer: Optimizer, module: Any) -> str | None:
    known = known_parameters({"": module})
    params = [p for group in optimizer.param_groups for p in group["params"]]
    children = {known[id(p)].name.split(".")[0] if id(p) in known else None for p in params}
    return children.pop() if len(children) == 1 else None
