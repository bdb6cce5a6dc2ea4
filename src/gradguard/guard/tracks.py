"""All tracks of one guard: hung on their optimizers, flushed, saved and let go of together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, final
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.detect import Finding
from gradguard.detect.order import in_order
from gradguard.functional import Measurement
from gradguard.guard.activations import LayerWatch
from gradguard.guard.arguments import check_parameters
from gradguard.guard.hooks import StepHooks
from gradguard.guard.in_time import TimeWatch
from gradguard.guard.journal import Journal
from gradguard.guard.losses import Losses, whole
from gradguard.guard.scaler import ScalerWatch
from gradguard.guard.track import Settings, Track
from gradguard.guard.treatment import Treatment
from gradguard.record import HostReader

GUARDED: WeakSet[Optimizer] = WeakSet()


@final
class Tracks:
    """Hangs on the step hooks of each track's optimizer until ``close()``.

    Args:
        tracks: one for each optimizer.
        losses: what was recorded for the steps to come.
        scaler: a ``GradScaler`` that may skip their steps, or None.
        then: called with a track after each of its steps, once that is done with.
    """

    def __init__(
        self, tracks: Iterable[Track], losses: Losses, scaler: Any, then: Callable[[Track], None] | None = None
    ) -> None:
        self.by_name, self.losses, self.then = {track.name: track for track in tracks}, losses, then
        self.scaler = None if scaler is None else ScalerWatch(scaler, self, losses.take, then)
        self.hooks = [self._attach(track) for track in self]
        for track in self:
            track.listen()

    def __iter__(self) -> Iterator[Track]:
        return iter(self.by_name.values())

    @property
    def device(self) -> torch.device:
        """Where the parameters of the first one lie."""
        return next((p.device for track in self for p in track.params), torch.device("cpu"))

    def named(self, name: str | None, what: str) -> Track:
        """Give the track of this name; the only one where there is one and none is named."""
        if name is None and len(self.by_name) == 1:
            (name,) = self.by_name
        if name not in self.by_name:
            raise ValueError(f"{what} needs the name of one of {', '.join(self.by_name)}, got {name}.")
        return self.by_name[name]

    def measure(self, name: str | None) -> Measurement:
        """Measure one optimizer's gradients for the step to come. Host sync: none."""
        track = self.named(name, "measure")
        track.refresh()
        return track.take(None if self.scaler is None else self.scaler.scale_of(track))

    def _attach(self, track: Track) -> StepHooks:
        def before(result: Any) -> None:
            loss = self.losses.take(track.name)
            if loss is None and isinstance(result, Tensor) and result.numel() == 1:
                loss = whole(result).clone()  # what the closure returned
            track.refresh()
            track.before_step(loss, None if self.scaler is None else partial(self.scaler.loss_scale, track))
            self.losses.mark()

        def after() -> None:
            self.losses.rewind()  # a closure may have been evaluated again
            track.after_step()
            for other in self:
                if other is not track:
                    other.layers.interrupt()
            if self.then is not None:
                self.then(track)

        GUARDED.add(track.optimizer)
        return StepHooks(track.optimizer, before=before, after=after, again=track.evaluated_again)

    def flush(self, *, together: bool) -> None:
        """Bring what was measured to the host and judge it. Host sync: one per device."""
        for track in self:
            track.flush(together=together)

    def findings(self) -> list[Finding]:
        """What was found so far: the worst first, of equally bad ones the cause before its effects."""
        found = [finding for track in self for finding in track.findings()]
        return in_order(found)

    def state_dict(self) -> dict[str, Any]:
        """Give what each track has seen."""
        return {track.name: track.state_dict() for track in self}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over.

        Raises:
            ValueError: it belongs to other optimizers.
        """
        if set(state) != set(self.by_name):
            raise ValueError(
                f"load_state_dict needs the state of a guard over {', '.join(self.by_name)}, got one over "
                f"{', '.join(state) or 'none'}. Guard the optimizers under the same names."
            )
        for track in self:
            track.load_state_dict(state[track.name])

    def close(self, *, together: bool) -> None:
        """Take every hook off, and look at the last steps."""
        for hooks in self.hooks:
            hooks.close()
        if self.scaler is not None:
            self.scaler.close()
        for track in self:
            GUARDED.discard(track.optimizer)
            if track.in_time is not None:
                track.in_time.stop()
            track.layers.close()
            if not together:
                track.reduce_losses = None
        self.flush(together=together)


def tracks_of(
    optimizers: Mapping[str, Optimizer],
    models: Mapping[str, nn.Module],
    settings: Settings,
    journal: Journal,
    reader: HostReader,
    treated: Mapping[str, Treatment],
    watches: Mapping[str, TimeWatch],
    layers: Mapping[str, LayerWatch],
) -> list[Track]:
    """Make the track of each optimizer; of several, each one's series begin with its name.

    Raises:
        ValueError: an optimizer trains nothing, or another model.
    """
    found = []
    for name, one in optimizers.items():
        prefix = f"{name}/" if len(optimizers) > 1 else ""
        track = Track(one, name, models, settings, journal, reader, prefix, treated.get(name))
        track.in_time, track.layers = watches.get(name), layers[name]
        found.append(track)
    check_parameters(found, models)
    return found
