"""The whole product for a plain loop: one line, and the loop is not edited."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, final
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.detect import AbstractDetector, Finding
from gradguard.errors import ClosedGuardError
from gradguard.functional import Measurement
from gradguard.guard.arguments import (
    check_parameters,
    detector_objects,
    named_models,
    named_optimizers,
    norm_order,
    whole_number,
)
from gradguard.guard.hooks import StepHooks
from gradguard.guard.scaler import ScalerWatch
from gradguard.guard.summary import summary
from gradguard.guard.track import Track
from gradguard.record import History, HostReader

logger = logging.getLogger("gradguard")
_GUARDED: WeakSet[Optimizer] = WeakSet()


@final
class Guard:
    """Measures the gradients at every optimizer step, finds what is wrong with them, and says what to change.

    It hangs on the optimizer's step hooks, so that accumulation, several optimizers, ``torch.compile``, DDP and FSDP2
    need nothing more. It only looks: weights, gradients and random numbers are bit for bit those of a run without it.

    Args:
        model: the model, wrapped or not; or several by name, ``{"generator": g, "discriminator": d}``.
        optimizer: its optimizer, or several, in a list or by name. Wrappers of Accelerate and Fabric are taken off.
        every_n_steps: steps between two flushes, >= 1. In between nothing is read on the host; at each flush what was
            measured comes over in one transfer and is judged, and the step's update and weight norms are sampled.
        norm_type: p of the gradient norms, > 0 or ``inf``.
        detectors: what to look for; :func:`gradguard.detect.default_detectors` by default. Each optimizer gets
            copies.
        scaler: the ``GradScaler`` of an fp16 loop. Needed to count overflow steps of optimizers that are not fused
            (they are skipped before any hook), and for ``measure()`` on gradients that are still scaled.
        max_points: most points that ``history`` keeps of a series.

    Attributes:
        closed: whether ``close()`` was called.

    Raises:
        ValueError: an argument out of range, nothing to train, an optimizer given twice or guarded already, or one
            over another model's parameters.
        TypeError: something that is no model, optimizer, detector or scaler.

    Host sync: one per flush and device; one per step while a gradient that is not finite is being looked at.
    Mutates: nothing but the two hooks, and three methods of ``scaler``, until ``close()``.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with Guard(model, optimizer) as guard:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(4, 2)).square().mean().backward()
    ...         optimizer.step()
    >>> guard.diagnose()
    []
    >>> guard.history["grad_norm/total"].steps
    tensor([1, 2, 3])
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, nn.Module],
        optimizer: Optimizer | Sequence[Optimizer] | Mapping[str, Optimizer],
        *,
        every_n_steps: int = 50,
        norm_type: float = 2.0,
        detectors: Sequence[AbstractDetector] | None = None,
        scaler: Any = None,
        max_points: int = 1024,
    ) -> None:
        every, order = whole_number("every_n_steps", every_n_steps, 1), norm_order(norm_type)
        models, optimizers = named_models(model), named_optimizers(optimizer, _GUARDED)
        chosen = detector_objects(detectors)
        self._history = History(whole_number("max_points", max_points, 2))
        self.closed = False
        self._reader = HostReader()
        self._losses: dict[str | None, tuple[Tensor, int]] = {}
        self._losses_to_come = self._losses
        self._tracks = {
            name: Track(
                opt,
                name,
                models,
                chosen,
                norm_type=order,
                every=every,
                history=self._history,
                reader=self._reader,
                prefix=f"{name}/" if len(optimizers) > 1 else "",
            )
            for name, opt in optimizers.items()
        }
        for track in self._tracks.values():
            check_parameters(track, models)
        self._scaler = None if scaler is None else ScalerWatch(scaler, self._tracks.values(), self._take_loss)
        self._hooks = [self._attach(track) for track in self._tracks.values()]

    def _attach(self, track: Track) -> StepHooks:
        def before(result: Any) -> None:
            loss = self._take_loss(track)
            if loss is None and isinstance(result, Tensor) and result.numel() == 1:
                loss = result.detach().clone()  # what the closure returned
            track.refresh()
            track.before_step(loss)
            self._losses_to_come = dict(self._losses)

        def after() -> None:
            self._losses = self._losses_to_come  # without those of a closure's later evaluations
            track.after_step()

        _GUARDED.add(track.optimizer)
        return StepHooks(track.optimizer, before=before, after=after)

    def _take_loss(self, track: Track) -> Tensor | None:
        sums = self._losses.pop(track.name, None) or self._losses.pop(None, None)
        return sums[0] / sums[1] if sums else None

    def record_loss(self, loss: Tensor | float, optimizer: str | None = None) -> None:
        """Note the loss of the optimizer step to come; several before one step (accumulation) are averaged.

        Args:
            loss: one number; a tensor stays on its device. Under accumulation, as it was before the division.
            optimizer: name of the optimizer whose step it belongs to; whichever steps next by default.

        Raises:
            ValueError: more than one number, or no such optimizer.
            ClosedGuardError: the guard was closed.

        Host sync: none. Mutates: nothing.
        """
        self._check_open("record_loss")
        value = loss.detach() if isinstance(loss, Tensor) else torch.tensor(float(loss), dtype=torch.float32)
        if value.numel() != 1:
            raise ValueError(f"record_loss needs one number, got shape {tuple(value.shape)}. Take its mean first.")
        if optimizer is not None:
            self._track(optimizer, "record_loss")
        value = value.reshape(()).to(torch.float32, copy=True)
        before = self._losses.get(optimizer)
        self._losses[optimizer] = (value, 1) if before is None else (before[0] + value, before[1] + 1)

    def measure(self, optimizer: str | None = None) -> Measurement:
        """Measure now, and use it for the step to come: right after ``backward()``, before a clipping of your own.

        Where the step is not made after all (a batch that you drop), measure again before the one that is.

        Args:
            optimizer: name of the optimizer (its position in a list, as a string); not needed where there is one.

        Returns:
            The raw gradient norms, on the device, with a ``scaler``'s loss scale divided out.

        Raises:
            ValueError: no such optimizer, or none named where there are several.
            ClosedGuardError: the guard was closed.

        Host sync: none. Mutates: nothing.
        """
        self._check_open("measure")
        if optimizer is None and len(self._tracks) == 1:
            (optimizer,) = self._tracks
        track = self._track(optimizer, "measure")
        track.refresh()
        track.taken = track.measured(self._scaler.scale_of(track) if self._scaler else None)
        return track.taken

    def diagnose(self) -> list[Finding]:
        """Say what has been found so far, the worst first. An empty list is good news. Host sync: one per device."""
        self._flush()
        found = [finding for track in self._tracks.values() for finding in track.findings()]
        return sorted(found, key=lambda finding: (-finding.severity.rank, finding.first_step))

    def summary(self) -> str:
        """Tell the run so far in a few lines of text: norms, updates, losses, findings. Host sync: one per device."""
        found = self.diagnose()
        return summary(list(self._tracks.values()), self._history, found)

    @property
    def history(self) -> History:
        """What was measured so far: series by name (the README lists them), of bounded size. Host sync: as a flush."""
        self._flush()
        return self._history

    @property
    def host_reads(self) -> int:
        """How many transfers from a device to the host this guard has made."""
        return self._reader.count

    def close(self) -> None:
        """Take every hook off. What was found and recorded stays; a second call does nothing."""
        if self.closed:
            return
        self.closed = True
        for hooks in self._hooks:
            hooks.close()
        if self._scaler is not None:
            self._scaler.close()
        for track in self._tracks.values():
            _GUARDED.discard(track.optimizer)
        self._flush()

    def __enter__(self) -> Guard:
        self._check_open("with")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close()
        except Exception:
            if kind is None:
                raise
            logger.exception("The last steps could not be judged.")  # the loop's own exception goes on

    def __repr__(self) -> str:
        steps = ", ".join(f"{name}: {track.step} steps" for name, track in self._tracks.items())
        return f"Guard({steps}{', closed' if self.closed else ''})"

    def _track(self, name: str | None, what: str) -> Track:
        if name not in self._tracks:
            raise ValueError(f"{what} needs the name of one of {', '.join(self._tracks)}, got {name}.")
        return self._tracks[name]

    def _flush(self) -> None:
        for track in self._tracks.values():
            track.flush()

    def _check_open(self, what: str) -> None:
        if self.closed:
            raise ClosedGuardError(f"{what} needs an open guard, this one was closed. Make a new Guard to go on.")
