"""One fit of one Trainer: the guard that all callbacks share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from gradguard.detect import Finding, Severity
from gradguard.errors import CriticalFindingError
from gradguard.guard import Flush, Guard
from gradguard.guard.hooks import innermost
from gradguard.lightning.folder import default_folder
from gradguard.lightning.log import Log
from gradguard.lightning.optimizers import named_optimizers
from gradguard.lightning.settings import Settings


@final
class Session:
    """Lasts from the first to the last batch of one ``fit``.

    Args:
        trainer: the Trainer, its optimizers made and its checkpoint restored.
        module: the LightningModule.
        settings: what the callbacks want together.
        state: another session's, from a checkpoint, or nothing.
    """

    def __init__(self, trainer: Any, module: Any, settings: Settings, state: Mapping[str, Any]) -> None:
        self.trainer, self.module, self.settings = trainer, module, settings
        optimizers = named_optimizers(trainer, module)
        self.names = {id(optimizer): name for name, optimizer in optimizers.items()}
        self.log = Log(trainer, module, settings, optimizers)
        self.measured_at: dict[str, int] = {}
        self.logged_at: dict[str, int] = {}
        self.critical: Finding | None = None  # to be raised once the batch is over
        self.story = ""
        self.guard = Guard(
            trainer.model,
            optimizers,
            every_n_steps=settings.every_n_steps,
            norm_type=settings.norm_type,
            detectors=settings.detectors,
            max_points=settings.max_points,
            scaler=self._scaler(),
            run_dir=self._folder(state),
            reduce_losses=self._mean_over_ranks if trainer.world_size > 1 else None,
        )
        self.guard.listen(self.log.take)
        self.guard.listen(self._heed)
        if state:
            self.guard.load_state_dict(state["guard"])
            self.log.load_state_dict(state["totals"])

    def state_dict(self) -> dict[str, Any]:
        """Give what a fit that is resumed goes on from."""
        return {"guard": self.guard.state_dict(), "totals": self.log.state_dict()}

    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _folder(self, state: Mapping[str, Any]) -> Path | None:
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return None
        if self.settings.run_dir is not None or not self.settings.record:
            return self.settings.run_dir
        return default_folder(self.trainer, state["guard"]["journal"]["run"] if state else None)

    def _mean_over_ranks(self, losses: Tensor) -> Tensor:
        mean: Tensor = self.trainer.strategy.reduce(losses, reduce_op="mean")
        return mean

    def record_loss(self, loss: Tensor) -> None:
        """Note what ``backward`` is called with, as it was before it was scaled and divided."""
        loss = loss.detach()
        scaler = self._scaler()
        if scaler is not None:
            loss = loss.float() / scaler.scale(torch.ones((), device=loss.device))
        if self.module.automatic_optimization:
            loss = loss * self.trainer.accumulate_grad_batches
        self.guard.record_loss(loss)

    def measure(self, optimizer: Any) -> None:
        """Measure the raw gradients of the step that this optimizer is about to make."""
        name = self.names.get(id(innermost(optimizer)))
        if name is None or self.measured_at.get(name) == self.trainer.global_step:
            return  # LBFGS evaluates its closure many times in one step; the first gradients are those of the step
        self.measured_at[name] = self.trainer.global_step
        self.log.measured(name, self.guard.steps[name] + 1, self.guard.measure(name))

    def after_batch(self, batch_idx: int) -> None:
        """Log what is due; stop a strict run that is past saving."""
        steps = self.guard.steps
        if steps == self.logged_at:
            return  # accumulating
        self.logged_at = steps
        ends = self.log.ends(batch_idx)
        if self.log.is_due() or (ends and self.log.is_watched):
            self.guard.flush()
            values = self.log.summaries()
            self.log.dashboards.scalars(values, self.log.now())
            self.log.hand_over(values)
        elif ends or self.log.is_followed or self.settings.prog_bar:
            self.log.hand_over({})
        self._stop_if_critical()

    def _heed(self, flush: Flush) -> None:
        for finding in (event.finding for event in flush.events):
            if self.settings.strict and finding.severity is Severity.CRITICAL and finding.active:
                self.critical = self.critical or finding

    def _stop_if_critical(self) -> None:
        finding, self.critical = self.critical, None
        if finding is None:
            return
        saved = ""
        if not self.trainer.fast_dev_run:
            name = f"gradguard-critical-step={self.trainer.global_step}.ckpt"
            path = Path(_checkpoint_folder(self.trainer)) / name
            self.trainer.save_checkpoint(path)
            saved = f" A checkpoint was saved to {path}."
        raise CriticalFindingError(f"Training was stopped by a critical finding (strict=True).{saved}\n{finding}")

    def end(self, exception: BaseException | None = None) -> None:
        """Look at the last steps, write the summary, and let go of the optimizers."""
        if self.guard.closed:
            return
        status = "finished" if exception is None else f"failed: {type(exception).__name__}"
        self.guard.close(status, together=exception is None)
        self.log.dashboards.scalars(self.log.summaries(), self.log.last_x)
        if self.settings.summary:
            self.story = self.guard.summary()
            self.log.dashboards.text("summary", self.story, self.log.last_x)
        if exception is None:
            self._stop_if_critical()

    def tell(self) -> None:
        """Print the summary, once: where the progress bar is gone."""
        story, self.story = self.story, ""
        if story and self.trainer.is_global_zero:
            self.trainer.print(story)


def _checkpoint_folder(trainer: Any) -> str:
    saved_to = (getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks)
    return str(next(filter(None, saved_to), None) or trainer.log_dir or trainer.default_root_dir)
