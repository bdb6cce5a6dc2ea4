"""Sees the steps that a ``GradScaler`` skips: an optimizer's own hooks do not fire for those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

from torch.optim import Optimizer


@final
class ScalerWatch:
    """Wraps ``step`` and ``unscale_`` of one scaler object; ``close`` puts them back.

    Args:
        scaler: a ``torch.amp.GradScaler``, or whatever has its ``step``, ``unscale_`` and ``scale``.
        before: called with the optimizer before the scaler steps it.
        after: called with the optimizer when the scaler has stepped it, or has skipped the step.
        unscaled: called with the optimizer when its gradients have been unscaled.

    Raises:
        TypeError: the object is no scaler.
    """

    def __init__(
        self,
        scaler: Any,
        *,
        before: Callable[[Optimizer], None],
        after: Callable[[Optimizer], None],
        unscaled: Callable[[Optimizer], None],
    ) -> None:
        if not all(callable(getattr(scaler, name, None)) for name in ("step", "unscale_", "scale")):
            raise TypeError(f"Guard needs scaler to be a torch.amp.GradScaler, got {type(scaler).__name__}.")
        self.scaler = scaler
        step, unscale = scaler.step, scaler.unscale_

        def watched_step(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            before(optimizer)
            result = step(optimizer, *args, **kwargs)
            after(optimizer)
            return result

        def watched_unscale(optimizer: Optimizer) -> None:
            unscale(optimizer)
            unscaled(optimizer)

        self.wrappers = {"step": watched_step, "unscale_": watched_unscale}
        vars(scaler).update(self.wrappers)

    def close(self) -> None:
        """Take the wrappers off, unless somebody has put others over them."""
        for name, wrapper in self.wrappers.items():
            if vars(self.scaler).get(name) is wrapper:
                del vars(self.scaler)[name]
