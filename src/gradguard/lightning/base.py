"""What all callbacks have in common: Lightning's hooks, passed on to the one session of the Trainer."""

from __future__ import annotations

import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pytorch_lightning import Callback

from gradguard.errors import GradGuardWarning
from gradguard.guard import Guard
from gradguard.lightning.optimizers import is_measurable, named_optimizers
from gradguard.lightning.session import Session
from gradguard.lightning.settings import Settings, joined, like

logger = logging.getLogger("gradguard")
_OF_MODULE = ("log", "log_dict")  # its methods, which Lightning hangs on every callback of a fit
_TREES: tuple[type, ...] = (Callback,)

if TYPE_CHECKING:
    EitherCallback = Callback
else:
    try:  # Lightning comes as two copies of one source; a callback of both works in either Trainer and either CLI
        from lightning.pytorch import Callback as _OtherCallback

        _TREES = (Callback, _OtherCallback)
    except ImportError:
        pass
    EitherCallback = type(
        "EitherCallback", _TREES, {"__doc__": "Lightning's callback, of each copy that is installed."}
    )


class AbstractGuardCallback(EitherCallback, ABC):
    """A view on the guard of a Trainer. Several of them share it, in any order: the first one passes the hooks on.

    Attributes:
        guard: of the last ``fit``, closed once that is over; None before the first.
    """

    def __init__(self) -> None:
        self.guard: Guard | None = None
        self.is_automatic = False  # made by an entry point: yields to what the user passed
        self._state: Mapping[str, Any] = {}  # of a checkpoint, until there is a guard to load it
        self._current: Session | None = None  # of the first of a Trainer's callbacks, which passes the hooks on
        self._key = ""
        self._waits = False  # for a first parameter that can be measured

    @abstractmethod
    def settings(self) -> Settings:
        """Say what this callback wants of the guard."""

    @property
    def state_key(self) -> str:
        """Name under which a checkpoint holds the state: norms of different orders can't be joined."""
        if not self._key:  # Lightning asks for it six times a step
            auto = ", automatic" if self.is_automatic else ""
            self._key = f"{type(self).__name__}(norm_type={self.settings().norm_type}{auto})"
        return self._key

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Refuse to clip what the Trainer clips, too."""
        clip = self.settings().clip
        if stage == "fit" and clip is not None and trainer.gradient_clip_val:
            raise ValueError(
                f"Gradients would be clipped twice: Trainer(gradient_clip_val={trainer.gradient_clip_val}) and "
                f"{type(self).__name__}({type(clip).__name__}). Remove one of them."
            )

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Make the session, once for all callbacks of the Trainer."""
        self._waits = False
        if callbacks_of(trainer)[:1] != [self]:
            return
        if self._current is not None and self._current.trainer is not trainer and not self._current.guard.closed:
            raise ValueError(
                f"This {type(self).__name__} is at work in another Trainer's fit. Give each Trainer one of its own."
            )
        self._begin(trainer, pl_module)

    def _begin(self, trainer: Any, module: Any) -> None:
        before, self._current = self._current, None
        optimizers = named_optimizers(trainer, module)
        measurable = {name: optimizer for name, optimizer in optimizers.items() if is_measurable(optimizer)}
        self._waits = bool(optimizers) and not measurable
        if not measurable:
            if not optimizers and not self.is_automatic:
                _warn(
                    "configure_optimizers gave no optimizer: there is nothing to measure. For one of your own, use "
                    "gradguard.Guard(model, optimizer)."
                )
            return
        if len(measurable) < len(optimizers):
            others = ", ".join(optimizers.keys() - measurable.keys())
            _warn(f"Not measured in this fit: {others}, since it has nothing to train yet.")
        ours = callbacks_of(trainer)
        state = next((callback._state for callback in ours if callback._state), {})
        if not state and trainer.global_step and before is not None and before.goes_on_in(trainer, module, optimizers):
            state = before.state_dict()
        self._current = Session(trainer, module, measurable, joined(wanted_by(ours)), state)
        for callback in ours:
            callback.guard, callback._state = self._current.guard, {}

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Notice other optimizers."""
        if session := self._session(trainer):
            session.check_optimizers()

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        """Note the loss."""
        # The first forward pass gives lazy parameters a shape; others are unfrozen later on. The step that this is part
        # of is not measured: its optimizer has already looked for hooks.
        if self._waits:
            self._begin(trainer, pl_module)
        if session := self._session(trainer):
            session.record_loss(loss)

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        """Measure: after accumulation and unscaling, before the Trainer's clipping."""
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
        if self._current is not None and self._current.trainer is trainer:
            self._current.tell()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Close, and tell the run as far as it got."""
        if self._current is not None and self._current.trainer is trainer:
            try:
                self._current.end(exception)
                self._current.tell()
            except Exception:  # the fit's own exception goes on
                logger.exception("The last steps could not be judged.")

    def state_dict(self) -> dict[str, Any]:
        """Give what a resumed fit goes on from; of a Trainer's callbacks, the first one saves it."""
        return dict(self._state) if self._current is None else self._current.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a checkpoint's state for the guard to come; where a fit is restored in its middle, load it now."""
        if self._current is not None and not self._current.guard.closed:
            self._current.load_state_dict(state_dict)
        else:
            self._state = state_dict

    def on_load_checkpoint(self, trainer: Any, pl_module: Any, checkpoint: Mapping[str, Any]) -> None:
        """Say so where a checkpoint's state can't be gone on from."""
        kept = [
            key for key in checkpoint.get("callbacks", ()) if str(key).startswith(f"{type(self).__name__}(norm_type")
        ]
        if kept and self.state_key not in kept and not self.is_automatic:
            _warn(f"The checkpoint holds {kept[0]}, this is {self.state_key}: what was measured before is left out.")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the fit behind: a copy is for another one, and one rank can make it alone."""
        own = {name: value for name, value in vars(self).items() if name not in _OF_MODULE}
        return {**own, "guard": None, "_current": None}

    def _session(self, trainer: Any) -> Session | None:
        current = self._current
        return current if current is not None and current.trainer is trainer and not current.guard.closed else None


def callbacks_of(trainer: Any) -> list[AbstractGuardCallback]:
    """Give ours among a Trainer's callbacks, without an automatic one where the user passed one of its kind."""
    ours = [callback for callback in trainer.callbacks if isinstance(callback, AbstractGuardCallback)]
    passed = {type(callback) for callback in ours if not callback.is_automatic}
    return [callback for callback in ours if not (callback.is_automatic and type(callback) in passed)]


def wanted_by(ours: Sequence[AbstractGuardCallback]) -> list[tuple[str, Settings]]:
    """Give the settings of each by its class; an automatic one takes over what a guard can have only once."""
    passed = next((callback.settings() for callback in ours if not callback.is_automatic), None)
    return [
        (type(one).__name__, like(one.settings(), passed) if one.is_automatic and passed else one.settings())
        for one in ours
    ]


def _warn(message: str) -> None:
    warnings.warn(message, GradGuardWarning, stacklevel=3)
