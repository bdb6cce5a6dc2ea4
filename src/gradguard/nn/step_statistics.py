"""What batch norms in a recurrence remember for evaluation: mean and variance of every time step.

Shape legend: T = time, B = batch, H = hidden, M = most steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.nn.recurrence import wide

NORMS = ("ih", "hh", "c")  # of what x gives to the gates, of what h gives to them, and of c


def _look(module: StepStatistics, _: Any) -> None:
    module.look()


class StepStatistics(nn.Module):
    """The statistics of one layer in one direction, as buffers: ``mean_<norm>``, ``var_<norm>``, ``batches``, [M, *].

    Args:
        hidden_size: H.
        max_steps: M.
        momentum: weight of the latest batch; None for the mean over all.
        device: of the buffers.
        dtype: of the module's parameters; that of the buffers is float32 or wider.
    """

    batches: Tensor

    def __init__(self, hidden_size: int, max_steps: int, momentum: float | None, device: Any, dtype: Any) -> None:
        super().__init__()
        self.max_steps, self.momentum = max_steps, momentum
        self.widths = (4 * hidden_size, 4 * hidden_size, hidden_size)
        self._ready = False  # whether a batch was seen: a buffer says so, too, but to read it costs a host sync
        kind = wide(dtype or torch.get_default_dtype())
        for norm, width in zip(NORMS, self.widths, strict=True):
            for name in (f"mean_{norm}", f"var_{norm}"):
                self.register_buffer(name, torch.empty(max_steps, width, device=device, dtype=kind))
        self.register_buffer("batches", torch.empty(max_steps, device=device, dtype=torch.int64))
        self.register_load_state_dict_post_hook(_look)  # type: ignore[no-untyped-call]  # torch's own lacks a type
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Forget all."""
        for name, buffer in self.named_buffers():
            buffer.fill_(1 if name.startswith("var_") else 0)
        self._ready = False

    def train(self, mode: bool = True) -> StepStatistics:
        """Set the mode; before evaluation, see whether there is something to evaluate with."""
        super().train(mode)
        if not mode:
            self.look()
        return self

    def look(self) -> None:
        """See whether a batch was seen."""
        self._ready = not self.batches.is_meta and bool(self.batches.any())

    def at(self, first: int, steps: int) -> dict[str, Tensor]:
        """Give the statistics of some steps, [T, *] each; of one that training has not seen, those of the last before.

        Raises:
            RuntimeError: training has seen none.
        """
        is_traced = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
        if not (self._ready or self.batches.is_meta or is_traced):
            self.look()  # buffers may have been written by other hands
        if not (self._ready or self.batches.is_meta or torch._C._functorch.peek_interpreter_stack() is not None):
            raise RuntimeError(
                "A BatchNormLSTM or its cell in eval() has no statistics yet: train it on a batch first, or load a "
                "state_dict that has some."
            )
        places = torch.arange(self.max_steps, device=self.batches.device)
        seen = self.batches > 0
        lowest = torch.where(seen, places, self.max_steps - 1).amin()
        known = torch.where(seen, places, -1).cummax(0).values.clamp(min=0).maximum(lowest)
        wanted = torch.arange(first, first + steps, device=places.device).clamp(max=self.max_steps - 1)
        rows = known.index_select(0, wanted)
        names = [f"{kind}_{norm}" for kind in ("mean", "var") for norm in NORMS]
        return {name: getattr(self, name).detach().index_select(0, rows) for name in names}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> StepStatistics:
        """Go along to another device; of dtypes, to float32 or wider only."""

        def widely(t: Tensor) -> Tensor:
            found = fn(t)
            is_narrow = found.is_floating_point() and found.dtype != wide(found.dtype)
            return t.to(found.device) if is_narrow else found

        super()._apply(widely, recurse)  # type: ignore[no-untyped-call]  # torch's own lacks a type
        return self

    @torch.no_grad()
    def follow(self, first: int, rows: Tensor) -> None:
        """Take up what a pass in training has seen, from step ``first`` on.

        Args:
            first: number of the first step.
            rows: of each step, means and biased variances of the norms, and the number of rows they are of; of fewer
                than two there is no variance.
        """
        rows = rows[: max(self.max_steps - first, 0)]
        place = slice(first, first + rows.shape[0])
        *values, count = rows.split([w for width in self.widths for w in (width, width)] + [1], dim=1)
        batches, several = self.batches[place], count[:, 0] > 1
        fresh = torch.ones_like(count[:, 0])
        share = torch.where(batches == 0, fresh, self.momentum) if self.momentum else fresh / (batches + 1)
        weight = (share * several).unsqueeze(1)
        unbiased = count / (count - 1).clamp(min=1)
        for norm, mean, var in zip(NORMS, values[::2], values[1::2], strict=True):
            for name, value in ((f"mean_{norm}", mean), (f"var_{norm}", var * unbiased)):
                buffer = getattr(self, name)
                buffer[place].lerp_(value.to(buffer.dtype), weight.to(buffer.dtype))
        batches += several

    def extra_repr(self) -> str:
        """Write what it was made with."""
        return f"max_steps={self.max_steps}, momentum={self.momentum}"


@contextmanager
def taken_anew(parts: Sequence[StepStatistics]) -> Iterator[None]:
    """Have statistics be the mean over all batches that are run within; on an error they are those of before."""
    before = [(part.momentum, {name: value.clone() for name, value in part.named_buffers()}) for part in parts]
    for part in parts:
        part.reset_parameters()
        part.momentum = None
    try:
        yield
    except BaseException:
        for part, (_, values) in zip(parts, before, strict=True):
            part.load_state_dict(values)
        raise
    finally:
        for part, (momentum, _) in zip(parts, before, strict=True):
            part.momentum = momentum
            part.look()
