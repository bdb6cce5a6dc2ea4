"""Taking weights over from torch's own modules."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import nn

from gradguard.nn.base import AbstractRecurrent
from gradguard.nn.cell import AbstractCell
from gradguard.nn.options import NAMES

Module = TypeVar("Module", bound=AbstractRecurrent | AbstractCell)
SHARED = ("num_layers", "bias", "batch_first", "bidirectional")  # what all of torch's modules are asked for


def take_over(
    cls: type[Module], old: Any, kind: type[nn.Module], options: Sequence[str], settings: dict[str, Any]
) -> Module:
    """Make a module with the sizes of ``old`` and copies of its parameters; others are as when new.

    Args:
        cls: the module's class.
        old: where the parameters come from.
        kind: what that has to be.
        options: arguments of the class that ``old`` has, too, beside the two sizes, device, dtype and dropout.
        settings: what a user asks for beside.

    Raises:
        TypeError: ``old`` is none; or what is asked for is decided by it.
    """
    if not isinstance(old, kind):
        raise TypeError(f"{cls.__name__}.from_torch needs a torch.nn.{kind.__name__}, got {type(old).__name__}.")
    arguments = signature(cls).parameters
    ours = {p.name for p in arguments.values() if p.kind is p.KEYWORD_ONLY} - {"forget_bias"}
    ours |= set(NAMES) if "options" in arguments else set()
    unknown = settings.keys() - ours - arguments.keys()
    if unknown:
        raise TypeError(f"{cls.__name__} has no argument {', '.join(sorted(unknown))}.")
    if not settings.keys() <= ours:
        names = ", ".join(sorted(settings.keys() - ours))
        raise TypeError(
            f"{cls.__name__}.from_torch takes {names} from the torch.nn.{kind.__name__}: set it there first."
        )
    source: Any = old
    weight = next(source.parameters())
    every = {name: getattr(source, name) for name in options} | settings
    every |= {"device": "meta", "dtype": weight.dtype} | ({"forget_bias": None} if "forget_bias" in arguments else {})
    new: Any = cls(source.input_size, source.hidden_size, **every)
    new.to_empty(device=weight.device)
    for child in new.children():
        child.reset_parameters()
    with torch.no_grad():
        for name, param in new.named_parameters():
            known = getattr(source, name, None)  # of a parametrized weight, its value
            if known is None:
                new.recurrence.fill_(name.split("_l")[0], param, new.hidden_size)
            else:
                param.copy_(known).requires_grad_(known.requires_grad)
    if hasattr(source, "dropout"):
        new.dropout = source.dropout  # not an argument: of one layer it would warn
    made: Module = new.train(source.training)
    return made
