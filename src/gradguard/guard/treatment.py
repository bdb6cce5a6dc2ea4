"""What a guard does to the gradients of one optimizer before they are used: clip them, or leave the step out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradguard.clip import AbstractClipper, AbstractRescaler, Binding
from gradguard.detect import Block
from gradguard.errors import SkipBudgetError
from gradguard.functional import Measurement
from gradguard.record import HostReader
from gradguard.recover import BufferShadow, Skip, Skipping


class Treated(NamedTuple):
    """What was done at one step.

    Attributes:
        report: total norm after, coefficient, threshold, whether anything changed, and how often a statistic of the
            clipper has begun anew so far, [5] or [1 + parts, 5]; None where no clipper was asked.
        skipped: whether the step is left out; a bool scalar on the device where nobody has read it.
    """

    report: Tensor | list[float] | None
    skipped: bool | Tensor


@final
class Treatment:
    """Clips and skips for one optimizer, with a clipper and a count of its own.

    Args:
        optimizer: the bare optimizer.
        name: its name.
        clip: the clipper to take a fresh copy of, or None.
        skip: how steps are skipped, or None.
        shadow: of the buffers that a skip puts back; all optimizers of a guard share it.
        reader: reads the one number a step that a skip needs on some devices.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        clip: AbstractRescaler | None,
        skip: Skip | None,
        shadow: BufferShadow | None,
        reader: HostReader,
    ) -> None:
        self.optimizer, self.shadow, self.reader = optimizer, shadow, reader
        self.clip = None if clip is None else clip.fresh()
        self.skipping = None if skip is None else Skipping(skip, name)
        self.undo: bool | Tensor = False  # whether what the step's forward pass did to the buffers is to be undone
        self.lends_found_inf = False
        self.spent: SkipBudgetError | None = None

    @property
    def limits(self) -> bool:
        """Whether the clipper makes gradients smaller only."""
        return isinstance(self.clip, AbstractClipper)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the clipper's parts."""
        return () if self.clip is None else self.clip.part_names

    def attach(self, binding: Binding) -> None:
        """Work on these parameters from now on."""
        if self.clip is not None:
            self.clip.attach(binding)

    def before_step(
        self, step: int, measurement: Measurement, found_inf: Tensor | None, loss: Tensor | None
    ) -> Treated:
        """Clip the gradients, or take them away. Host sync: one where a skip needs it and ``found_inf`` is no way."""
        bad = self._judged(step, measurement, found_inf, loss)
        if bad is True:
            self._leave_out(step, measurement)
            return Treated(None, True)
        if self.clip is None:
            return Treated(None, bad)
        factors = self.clip.decide(measurement)
        factors.apply_()
        return Treated(factors.report(self.clip.level_changes), bad)

    def evaluated_again(self, measurement: Measurement) -> None:
        """Clip the gradients of another evaluation within the same step, as LBFGS makes them; nothing is learnt."""
        if self.clip is not None:
            self.clip.decide_again(measurement).apply_()

    def take_back(self) -> None:
        """Take back what was lent to the optimizer for its step, also where an exception broke that off."""
        if self.lends_found_inf:
            del self.optimizer.found_inf  # type: ignore[attr-defined]
            self.lends_found_inf = False

    def after_step(self) -> None:
        """Put the buffers back after a step that was left out; note them after one that was made."""
        self.take_back()
        if self.shadow is not None:
            if self.undo is True:
                self.shadow.restore()
            else:
                self.shadow.take(self.undo if isinstance(self.undo, Tensor) else None)
        self.undo = False

    def overflowed(self, step: int, loss: Tensor | None) -> Treated:
        """Put the buffers back: a loss scaler has skipped the step before any hook.

        That is routine where the loss is finite, and a bad batch where it is not.
        """
        if self.shadow is None or self.skipping is None:
            return Treated(None, False)
        self.shadow.restore()
        bad = _is_bad(loss)
        if not isinstance(bad, Tensor):
            self._count(step, ["the loss"] if bad else [])
        return Treated(None, bad)

    def settle(self, block: Block, treated: Sequence[Treated | None]) -> None:
        """Count those of the steps that were judged on the device, once they are on the host."""
        flags = zip(block.steps.tolist(), block.skipped.tolist(), block.overflow.tolist(), treated, strict=True)
        for row, (step, skipped, overflow, one) in enumerate(flags):
            if self.skipping is None or one is None or not isinstance(one.skipped, Tensor):
                continue
            if skipped:
                finite = block.grad_norms[row].isfinite().tolist()
                names = [n for n, ok in zip(block.layout.names, finite, strict=True) if not ok]
                self._count(step, names or ["the loss"])
            elif overflow:
                self._count(step, [])
            else:
                self.skipping.good()

    def raise_if_spent(self) -> None:
        """Raise what the budget of skips has to say.

        Raises:
            SkipBudgetError: there were too many in a row.
        """
        if self.spent is not None:
            error, self.spent = self.spent, None
            raise error

    def _judged(
        self, step: int, measurement: Measurement, found_inf: Tensor | None, loss: Tensor | None
    ) -> bool | Tensor:
        """Say whether the step is to be left out, on the host where that costs nothing or there is no other way.

        An overflow is left to the scaler that has found it, unless the loss itself is not finite.
        """
        if self.skipping is None:
            return False
        finite = measurement.finite
        if is_on_host(finite):
            overflow = found_inf is not None and bool(found_inf)
            self.undo = overflow or not finite
            bad = bool(_is_bad(loss)) if overflow else not finite
            if overflow and not bad:
                self._count(step, [])
        elif getattr(self.optimizer, "_step_supports_amp_scaling", False):
            return self._found_inf(~finite, found_inf, loss)
        else:
            bad = self.undo = not self.reader.read([finite])[0]
        if not self.undo:
            self.skipping.good()
        return bad

    def _found_inf(self, bad: Tensor, found_inf: Tensor | None, loss: Tensor | None) -> Tensor:
        """Tell the optimizer on the device."""
        flag = bad.to(torch.float32)
        if found_inf is None:
            self.optimizer.found_inf = flag  # type: ignore[attr-defined]  # what a GradScaler would set
            self.lends_found_inf, self.undo = True, bad
            return bad
        scalers = found_inf.to(bad.device) != 0
        self.optimizer.found_inf = torch.maximum(found_inf, flag.to(found_inf))  # type: ignore[attr-defined]
        self.undo = bad | scalers
        return torch.where(scalers, _is_bad(loss), bad)

    def _leave_out(self, step: int, measurement: Measurement) -> None:
        for group in self.optimizer.param_groups:
            for param in group["params"]:
                param.grad = None
        if self.shadow is not None:
            self.shadow.restore()
        (norms,) = self.reader.read([measurement.norms])
        finite = norms.isfinite().tolist()
        names = [name for name, ok in zip(measurement.names, finite, strict=True) if not ok]
        self._count(step, names or ["the loss"])

    def _count(self, step: int, places: Sequence[str]) -> None:
        """Count a step that is left out because of these places, or, without any, for an overflow."""
        assert self.skipping is not None
        try:
            if places:
                self.skipping.bad(step, places)
            else:
                self.skipping.overflow(step)
        except SkipBudgetError as error:
            self.spent = self.spent or error

    def state_dict(self) -> dict[str, Any]:
        """Give what the clipper has learnt, and the count of skips."""
        return {
            "clip": None if self.clip is None else self.clip.state_dict(),
            "skip": None if self.skipping is None else self.skipping.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there; what the other one had not begins anew."""
        if self.clip is not None and state.get("clip"):
            self.clip.load_state_dict(state["clip"])
        if self.skipping is not None and state.get("skip"):
            self.skipping.load_state_dict(state["skip"])
        if self.shadow is not None:
            self.shadow.take()
        self.undo, self.spent = False, None


def _is_bad(loss: Tensor | None) -> bool | Tensor:
    """Say whether a loss is not finite: on the host where it lies there, or where none was recorded."""
    if loss is None:
        return False
    return not loss.isfinite() if is_on_host(loss) else ~loss.isfinite()


def is_on_host(tensor: Tensor) -> bool:
    """Say whether to read a tensor waits for nothing."""
    return tensor.is_cpu
