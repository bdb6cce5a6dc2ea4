"""What all callbacks have in common: Lightning's hooks, passed on to the one session of the Trainer."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback

from gradguard.guard import Guard
from gradguard.lightning.optimizers import named_optimizers
from gradguard.lightning.session import Session
from gradguard.lightning.settings import Settings, joined

logger = logging.getLogger("gradguard")
_OF_MODULE = ("log", "log_dict")  # its methods, which Lightning hangs on every callback of a fit
_TREES: tuple[type, ...] = (Callback,)

if TYPE_CHECKING:
    _Callback = Callback
else:
    try:  # Lightning comes as two copies of one source; a callback of both works in either Trainer and either CLI
        from lightning.pytorch import Callback as _OtherCallback

        _TREES = (Callback, _OtherCallback)
    except ImportError:
        pass
    _Callback = type("_Callback", _TREES, {"__doc__": "Lightning's callback, of each copy that is installed."})


class AbstractGuardCallback(_Callback, ABC):
    """A view on the guard of a Trainer. Several of them share it, in any order: the first one passes the hooks on.

    Attributes:
        guard: of the last ``fit``, closed once that is over; None before the first.
    """

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.is_automatic = False  # made by an entry point: yields to what the user passed
        self._state: Mapping[str, Any] = {}  # of a checkpoint, until there is a guard to load it
        self._fit: Session | None = None  # of the first of a Trainer's callbacks, which passes the hooks on

    @abstractmethod
    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""

    @property
    def state_key(self) -> str:
        """Name under which a checkpoint holds the state: norms of different orders can't be joined."""
        auto = ", automatic" if self.is_automatic else ""
        return f"{type(self).__name__}(norm_type={self.settings().norm_type}{auto})"

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the session, once for all callbacks of the Trainer."""
        ours = _of(trainer)
        if ours and ours[0] is self and named_optimizers(trainer, pl_module):
            state = next((callback._state for callback in ours if callback._state), {})
            if not state and trainer.global_step and self._fit is not None and self._fit.trainer is trainer:
                state = self._fit.state_dict()  # the same Trainer goes on with another fit
            wanted = [(type(callback).__name__, callback.settings()) for callback in ours]
            self._fit = Session(trainer, pl_module, joined(wanted), state)
            for callback in ours:
                callback.guard, callback._state = self._fit.guard, {}

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Note the loss."""
        if session := self._session(trainer):
            session.record_loss(loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure: after accumulation and unscaling, before any clipping."""
        if session := self._session(trainer):
            session.measure(optimizer)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log."""
        if session := self._session(trainer):
            session.after_batch(batch_idx)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Close."""
        if session := self._session(trainer):
            session.end()

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        """Tell the run."""
        if session := self._session(trainer):
            session.tell()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close, and tell the run as far as it got."""
        if session := self._session(trainer):
            try:
                session.end(exception)
                session.tell()
            except Exception:  # the fit's own exception goes on
                logger.exception("The last steps could not be judged.")

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed fit goes on from; of a Trainer's callbacks, the first one saves it."""
        return dict(self._state) if self._fit is None else self._fit.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state for the guard to come."""
        self._state = state_dict

    def __getstate__(self) -> dict[str, Any]:
        """Leave the fit behind: a copy is for another one, and one rank can make it alone."""
        own = {name: value for name, value in vars(self).items() if name not in _OF_MODULE}
        return {**own, "guard": None, "_fit": None}

    def _session(self, trainer: Any) -> Session | None:
        return self._fit if self._fit is not None and self._fit.trainer is trainer else None


def _of(trainer: Any) -> list[AbstractGuardCallback]:
    ours = [callback for callback in trainer.callbacks if isinstance(callback, AbstractGuardCallback)]
    return [callback for callback in ours if not callback.is_automatic] or ours
