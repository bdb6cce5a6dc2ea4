"""Sees the steps that a ``GradScaler`` skips: an optimizer's own hooks do not fire for those."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import MethodType
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradguard.guard.hooks import innermost
from gradguard.guard.track import Track


@final
class ScalerWatch:
    """Wraps ``step``, ``unscale_`` and ``update`` of one scaler object; the last watch to close puts them back.

    Args:
        scaler: a ``torch.amp.GradScaler``, or whatever has its methods.
        tracks: of the optimizers that it may step.
        take_loss: gives the loss that was recorded for a track's step, and forgets it.
        then: called with the track of a step that was skipped, once that is done with.

    Raises:
        TypeError: the object is no scaler.
    """

    def __init__(
        self,
        scaler: Any,
        tracks: Iterable[Track],
        take_loss: Callable[[str], Tensor | None],
        then: Callable[[Track], None] | None = None,
    ) -> None:
        if not all(callable(getattr(scaler, name, None)) for name in ("scale", *_WRAPPERS)):
            raise TypeError(f"Guard needs scaler to be a torch.amp.GradScaler, got {type(scaler).__name__}.")
        self.scaler, self.take_loss, self.then = scaler, take_loss, then
        self.tracks = {id(track.optimizer): track for track in tracks}
        for name, wrapper in _WRAPPERS.items():
            if not isinstance(vars(scaler).get(name), wrapper):
                vars(scaler)[name] = wrapper(scaler, name)
            vars(scaler)[name].watches.append(self)

    def track_of(self, optimizer: Any) -> Track | None:
        """Find the track of an optimizer, which may be wrapped, or be none of ours."""
        return self.tracks.get(id(innermost(optimizer)))

    def scale_of(self, track: Track) -> Tensor | None:
        """Give the scale that a track's gradients still carry, on their device; None where they do not."""
        if track.unscaled or not track.params:
            return None
        scale: Tensor = self.scaler.scale(torch.ones((), dtype=torch.float32, device=track.params[0].device))
        return scale

    def loss_scale(self, track: Track) -> Tensor | None:
        """Give what the loss was multiplied with, on a track's device: gradients inside the model carry it."""
        if getattr(self.scaler, "_scale", self) is None:
            return None  # it has scaled nothing so far, and would begin to with a look
        device = track.params[0].device if track.params else None
        scale: Tensor = self.scaler.scale(torch.ones((), dtype=torch.float32, device=device))
        return scale.clone()

    def close(self) -> None:
        """Take part no more, and let go of the guard."""
        for name, wrapper in _WRAPPERS.items():
            wrapped = vars(self.scaler).get(name)
            if isinstance(wrapped, wrapper):
                wrapped.watches.remove(self)
                if not wrapped.watches:
                    wrapped.restore()
        self.tracks, self.take_loss, self.then = {}, lambda _: None, None


class _Wrapped:
    """A method of one scaler; a copy or a pickle of the scaler gets the plain method back."""

    def __init__(self, scaler: Any, name: str) -> None:
        self.scaler, self.name = scaler, name
        self.plain, self.was_own = getattr(scaler, name), name in vars(scaler)
        self.watches: list[ScalerWatch] = []

    def restore(self) -> None:
        if self.was_own:
            vars(self.scaler)[self.name] = self.plain
        else:
            del vars(self.scaler)[self.name]

    def __reduce__(self) -> tuple[Any, ...]:
        return _plain_method, (self.scaler, self.name)


class _Step(_Wrapped):
    def __call__(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        tracks = [(watch, track) for watch in self.watches if (track := watch.track_of(optimizer))]
        for _, track in tracks:
            track.fired = False
        result = self.plain(optimizer, *args, **kwargs)
        for watch, track in tracks:
            if not track.fired:
                track.skipped(watch.take_loss(track.name))
                if watch.then is not None:
                    watch.then(track)
        return result


class _Unscale(_Wrapped):
    def __call__(self, optimizer: Optimizer) -> None:
        self.plain(optimizer)
        for watch in self.watches:
            if track := watch.track_of(optimizer):
                track.unscaled = True


class _Update(_Wrapped):
    def __call__(self, *args: Any, **kwargs: Any) -> None:
        self.plain(*args, **kwargs)
        for watch in self.watches:
            for track in watch.tracks.values():
                track.unscaled = False


_WRAPPERS: dict[str, type[_Wrapped]] = {"step": _Step, "unscale_": _Unscale, "update": _Update}


def _plain_method(scaler: Any, name: str) -> Any:
    return MethodType(getattr(type(scaler), name), scaler)
