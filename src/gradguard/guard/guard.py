"""The whole product for a plain loop: one line, and the loop is not edited."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.arguments import whole_number
from gradguard.clip import AbstractRescaler
from gradguard.detect import AbstractDetector, Finding
from gradguard.errors import ClosedGuardError
from gradguard.functional import Measurement
from gradguard.guard.account import AbstractAccount
from gradguard.guard.activations import layer_watches
from gradguard.guard.alarm import FAILED, Alarm, notify_argument, strict_argument
from gradguard.guard.arguments import (
    check_state,
    device_of,
    named_models,
    named_optimizers,
    record_folder,
    settings_of,
    time_watches,
    treatments,
)
from gradguard.guard.journal import Flush, Journal
from gradguard.guard.losses import Losses
from gradguard.guard.track import Track
from gradguard.guard.tracks import GUARDED, Tracks, tracks_of
from gradguard.probe import ThroughTime
from gradguard.record import HostReader
from gradguard.recover import Skip

logger = logging.getLogger("gradguard")


@final
class Guard(AbstractAccount):
    """Measures the gradients at every optimizer step, finds what is wrong with them, and says what to change.

    It hangs on the optimizer's step hooks, so that accumulation, several optimizers, ``torch.compile``, DDP and FSDP2
    need nothing more. It only looks: weights, gradients and random numbers are bit for bit those of a run without it,
    unless ``clip`` or ``recover`` asks for more.

    Args:
        model: the model, wrapped or not; or several by name, ``{"generator": g, "discriminator": d}``.
        optimizer: its optimizer, or several, in a list or by name. Wrappers of Accelerate and Fabric are taken off.
        every_n_steps: steps between two flushes, >= 1. In between nothing is read on the host; at each one what was
            measured comes over at once and is judged, and the step's update and weight norms are sampled.
        norm_type: p of the gradient norms, > 0 or ``inf``.
        detectors: what to look for, of which each optimizer gets copies; ``detect.default_detectors()`` by default.
        scaler: the ``GradScaler`` of an fp16 loop. Needed to count overflow steps of optimizers that are not fused
            (they are skipped before any hook), and for ``measure()`` on gradients that are still scaled.
        max_points: most points that ``history`` keeps of a series.
        run_dir: folder for a run record (:func:`gradguard.record.read`); none by default. It must not hold another run.
            Of several processes, rank 0 writes.
        reduce_losses: gives the mean over all processes of a vector of losses, for a history alike on all ranks. Every
            flush takes all processes then, and what the guard says is as of the last one.
        clip: a clipper from :mod:`gradguard.clip`, of which each optimizer gets a copy; or one by optimizer, by name.
        recover: :class:`gradguard.recover.Skip`, to leave out steps whose gradients are not finite.
        through_time: whether recurrent modules are looked into, or how: :class:`gradguard.probe.ThroughTime`.
        activations: whether layers' outputs and units are looked at on sampled steps; not those of compiled models.
        strict: whether a critical finding that still holds stops the run: once its flush is over, the guard closes, and
            ``optimizer.step()`` raises :class:`gradguard.CriticalFindingError`; ``close()`` does for the last steps. Of
            several processes, which all have to be strict then, all stop where one does: one flag is shared a flush.
        notify: a function, or several, to call with each :class:`gradguard.Finding` as soon as a flush notices it: once
            for each symptom, and again where it gets worse; not where it ends. One that fails warns once, and training
            goes on. Of several processes, rank 0 calls it. Without one, a guard says nothing before it is asked.

    Attributes:
        closed: whether ``close()`` was called.

    Raises:
        ValueError: an argument out of range, nothing to train, an optimizer given twice, guarded, or another model's.
        TypeError: something that is no model, optimizer, detector, scaler or clipper.
        RecordError: ``run_dir`` can't be written, or, at the first step, holds another run.

    Host sync: one per flush and device; one per step while a non-finite gradient is looked at, or as ``Skip`` says.
    Mutates: nothing but the two hooks, and three methods of ``scaler``, until ``close()``; gradients, with ``clip``.
    With ``activations``, layers have hooks from before a sampled step (the first is one) until it is made: close the
    guard before ``torch.jit.script(model)``, which takes no such hooks. A model pickled then loads without GradGuard.

    >>> import torch
    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> with Guard(model, optimizer) as guard:
    ...     for _ in range(3):
    ...         optimizer.zero_grad()
    ...         model(torch.ones(4, 2)).square().mean().backward()
    ...         optimizer.step()
    >>> guard.diagnose(), guard.history["grad_norm/total"].steps
    ([], tensor([1, 2, 3]))
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
        run_dir: str | Path | None = None,
        reduce_losses: Callable[[Tensor], Tensor] | None = None,
        clip: AbstractRescaler | Mapping[str, AbstractRescaler] | None = None,
        recover: Skip | None = None,
        through_time: bool | ThroughTime = False,
        activations: bool = True,
        strict: bool = False,
        notify: Callable[[Finding], object] | Sequence[Callable[[Finding], object]] | None = None,
    ) -> None:
        strict, told = strict_argument(strict), notify_argument(notify)
        models, optimizers = named_models(model), named_optimizers(optimizer, GUARDED)
        settings = settings_of(every_n_steps, norm_type, detectors, through_time, reduce_losses)
        self.closed, self._losses, self._reader = False, Losses(), HostReader()
        treated = treatments(clip, recover, optimizers, models, self._reader)
        points = whole_number("Guard", "max_points", max_points, least=2)
        self._journal = Journal(points, record_folder(run_dir), device_of(models))
        watches = time_watches(through_time, optimizers, models), layer_watches(activations, optimizers, models)
        tracks = tracks_of(optimizers, models, settings, self._journal, self._reader, treated, *watches)
        self._alarm = Alarm(strict, told, self._journal, self._reader)
        self._tracks = Tracks(tracks, self._losses, scaler, self._stop_if_critical if strict else None)

    def record_loss(self, loss: Tensor | float, optimizer: str | None = None) -> None:
        """Note the loss of the step to come; several before one step (accumulation) are averaged.

        Args:
            loss: one number; a tensor stays on its device. Under accumulation, as it was before the division.
            optimizer: name of the optimizer whose step it belongs to; whichever steps next by default.

        Raises:
            ValueError: more than one number, no such optimizer, or (``ClosedGuardError``) the guard was closed.

        Host sync: none. Mutates: nothing.
        """
        self._check_open("record_loss")
        if optimizer is not None:
            self._tracks.named(optimizer, "record_loss")
        self._losses.add(loss, optimizer)

    def measure(self, optimizer: str | None = None) -> Measurement:
        """Measure now, and use it for the step to come: right after ``backward()``, before a clipping of your own.

        Where the step is not made after all (a batch that you drop), measure again before the one that is.

        Args:
            optimizer: name of the optimizer (its position in a list, as a string); not needed where there is one.

        Returns:
            The raw gradient norms, on the device, with a ``scaler``'s loss scale divided out.

        Raises:
            ValueError: no such optimizer, none named of several, or (``ClosedGuardError``) the guard was closed.

        Host sync: none. Mutates: nothing.
        """
        self._check_open("measure")
        return self._tracks.measure(optimizer)

    def waiting(self, optimizer: str) -> Measurement | None:
        """Give what was measured for an optimizer's step to come, if it was. Host sync: none."""
        return self._tracks.named(optimizer, "waiting").taken

    def open_record(self) -> None:
        """Open the run record now, where there is one, rather than at the first step."""
        self._journal.open()

    def listen(self, listener: Callable[[Flush], None]) -> None:
        """Have ``listener`` called with what each flush brings."""
        self._journal.listeners.append(listener)

    def flush(self) -> None:
        """Bring what was measured to the host and judge it now, on all processes at once. Host sync: one per device."""
        self._tracks.flush(together=True)

    def state_dict(self) -> dict[str, Any]:
        """Give everything for a checkpoint, from which a guard goes on bit for bit; loads under ``weights_only=True``.

        Host sync: one per device.
        """
        self.flush()
        return {"version": 1, "tracks": self._tracks.state_dict(), "journal": self._journal.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from another guard's ``state_dict()``: steps, history, findings and the run record.

        Settings stay those of this guard; a detector that the other one had not starts afresh.

        Args:
            state: what ``state_dict()`` gave, of a guard over optimizers of the same names.

        Raises:
            ValueError, TypeError: it is no guard's, belongs to other optimizers, or to a newer GradGuard.
        """
        self._check_open("load_state_dict")
        check_state(state)
        self._tracks.load_state_dict(state["tracks"])
        self._journal.load_state_dict(state["journal"])
        self._alarm.critical = None

    def close(self, status: str = "finished", *, together: bool = True) -> None:
        """Take every hook off; end the record with ``status``. ``together``: all processes do so at once.

        Raises:
            CriticalFindingError: a strict run has finished, and its last steps show a critical finding.
        """
        if self.closed:
            return
        self.closed = True
        self._tracks.close(together=together)
        fails = status == "finished" and self._alarm.rings(self._tracks.device, together=together)
        self._journal.close(FAILED if fails else status)
        if fails:
            raise self._alarm.error()

    def _stop_if_critical(self, track: Track) -> None:
        if self._alarm.rings(self._tracks.device, together=track.step % track.every == 0):
            self.close(FAILED)
            raise self._alarm.error()

    def __enter__(self) -> Guard:
        self._check_open("with")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.close("finished" if kind is None else f"failed: {kind.__name__}", together=kind is None)
        except Exception:
            if kind is None:
                raise
            logger.exception("The last steps could not be judged.")  # the loop's own exception goes on

    def __repr__(self) -> str:
        steps = ", ".join(f"{name}: {step} steps" for name, step in self.steps.items())
        return f"Guard({steps}{', closed' if self.closed else ''})"

    def _check_open(self, what: str) -> None:
        if self.closed:
            raise ClosedGuardError(f"{what} needs an open guard, this one was closed. Make a new Guard to go on.")
