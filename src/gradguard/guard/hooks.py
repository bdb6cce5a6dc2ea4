"""The two hooks that a guard hangs on an optimizer, and the optimizer inside its wrappers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterable
from typing import Any, final

import torch
from torch.optim import Optimizer


def innermost(optimizer: Any) -> Any:
    """Give what Accelerate, Fabric or Lightning has wrapped; its hooks fire on every way to step it."""
    while isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return optimizer


@final
class StepHooks:
    """Calls ``before`` once the gradients of a step are there, and ``after`` when the step is done.

    A closure is evaluated inside the step, so that the gradients a pre-hook sees are those of the step before: the
    closure is wrapped, and ``before`` runs after its first evaluation (LBFGS evaluates it many times).

    Args:
        optimizer: the bare optimizer.
        before: called with what the closure returned, or None where there is no closure.
        after: called when the step is done.
        again: called after each further evaluation of the closure.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        before: Callable[[Any], None],
        after: Callable[[], None],
        again: Callable[[], None] = lambda: None,
    ) -> None:
        # A subclass whose step() calls super().step() fires each hook once per class: only the outermost call counts.
        nests = sum("step" in vars(cls) for cls in type(optimizer).__mro__ if cls is not Optimizer) > 1

        def pre(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
            if nests and _depth(optimizer) > 1:
                return None
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            if not callable(closure):
                before(None)
                return None
            watched = _watched(closure, before, again)
            return ((args[0], watched, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": watched})

        def post(_: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not (nests and _depth(optimizer) > 1):
                after()

        # A compiled step would trace the bookkeeping and recompile whenever a counter moves.
        untraced: Callable[[Any], Any] = torch.compiler.disable
        self.handles = [
            optimizer.register_step_pre_hook(untraced(pre)),
            optimizer.register_step_post_hook(untraced(post)),
        ]

    def close(self) -> None:
        """Take both hooks off."""
        for handle in self.handles:
            handle.remove()


def _watched(closure: Callable[[], Any], then: Callable[[Any], None], again: Callable[[], None]) -> Callable[[], Any]:
    first = True

    def watched() -> Any:
        nonlocal first
        result = closure()
        if first:
            first = False
            then(result)
        else:
            again()
        return result

    return watched


def _depth(optimizer: Optimizer) -> int:
    """Count the calls of this optimizer's ``step`` on the stack; a counter would go wrong after an exception."""
    depth, frame = 0, sys._getframe().f_back
    while frame is not None:
        depth += frame.f_code is _STEP and frame.f_locals.get("self") is optimizer
        frame = frame.f_back
    return depth


_STEP = Optimizer.profile_hook_step(lambda optimizer: None).__code__


def trainable_ids(groups: Iterable[dict[str, Any]], known: Collection[int] = ()) -> list[int]:
    """Identify the parameters that are trainable now or are ``known`` as such, to notice when others join or leave.

    One that is frozen for a while (a GAN's discriminator) stays known, so that nothing has to be laid out anew.
    """
    return [id(p) for group in groups for p in group["params"] if p.requires_grad or id(p) in known]
