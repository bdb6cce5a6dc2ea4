"""One fit of one Trainer: the guard that all callbacks share."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Optimizer

from gradguard.detect import Finding
from gradguard.errors import GradGuardWarning
from gradguard.guard import Flush, Guard
from gradguard.guard.alarm import FAILED, critical_in, stopped
from gradguard.guard.hooks import innermost
from gradguard.lightning.folder import default_folder
from gradguard.lightning.log import Log
from gradguard.lightning.report import write_report
from gradguard.lightning.settings import Settings


@final
class Session:
    """Lasts from the first to the last batch of one ``fit``.

    Args:
        trainer: the Trainer, its optimizers made and its checkpoint restored.
        module: the LightningModule.
        optimizers: those that can be measured, by name.
        settings: what the callbacks want together.
        state: another session's, from a checkpoint, or nothing.
    """

    def __init__(
        self,
        trainer: Any,
        module: Any,
        optimizers: Mapping[str, Optimizer],
        settings: Settings,
        state: Mapping[str, Any],
    ) -> None:
        self.trainer, self.module, self.settings = trainer, module, settings
        self.names = {id(optimizer): name for name, optimizer in optimizers.items()}
        self.given = set(map(id, trainer.optimizers))
        if state and set(state["totals"]) != set(optimizers):
            _warn(
                f"The checkpoint's gradients are those of {', '.join(state['totals'])}, this fit has "
                f"{', '.join(optimizers)}: what was measured before is left out."
            )
            state = {}
        self.log = Log(trainer, module, settings, optimizers)
        self.losses: list[Tensor] = []  # of several optimizers, until it is known whose step they belong to
        self.measured_at: dict[str, int] = {}
        self.critical: Finding | None = None  # to be raised once the batch is over
        self.elsewhere = False  # or raised by another process
        self.is_alone = False  # whether this process ends by itself: the others answer no more
        self.story = ""
        self.folder = self._folder(state)
        self.guard = Guard(
            trainer.model,
            optimizers,
            every_n_steps=settings.every_n_steps,
            norm_type=settings.norm_type,
            detectors=settings.detectors,
            max_points=settings.max_points,
            scaler=self._scaler(),
            run_dir=self.folder,
            reduce_losses=self._mean_over_ranks if trainer.world_size > 1 else None,
            clip=settings.clip,
            recover=settings.recover,
            through_time=settings.through_time or False,
            activations=settings.activations,
            notify=settings.notify,
        )
        self.guard.listen(self.log.take)
        self.guard.listen(self._heed)
        try:
            if state:
                self.load_state_dict(state)
            self.guard.open_record()
        except Exception:
            self.is_alone = True
            self.guard.close("failed", together=False)
            raise
        self._stand()
        if settings.report and self.folder is None and trainer.is_global_zero and not trainer.fast_dev_run:
            _warn(
                "There will be no report: it is made from the run record, and there is none. Give the Trainer a "
                "logger, or GradGuard a run_dir."
            )

    def _stand(self) -> None:
        """Note where the optimizers stand: at the last batch, when everything and when totals were last handed over."""
        self.steps = self.summed_up = self.handed_over = self.guard.steps
        self.measured_at.clear()

    def state_dict(self) -> dict[str, Any]:
        """Give what a fit that is resumed goes on from."""
        return {"guard": self.guard.state_dict(), "totals": self.log.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it, also in the middle of a fit that a tuner takes back."""
        self.guard.load_state_dict(state["guard"])
        self.log.load_state_dict(state["totals"])
        self._stand()

    def goes_on_in(self, trainer: Any, module: Any, optimizers: Mapping[str, Optimizer]) -> bool:
        """Say whether another fit of this Trainer goes on with the same training."""
        return self.trainer is trainer and self.module is module and set(self.names.values()) == set(optimizers)

    def check_optimizers(self) -> None:
        """Warn once of optimizers that came in the middle of the fit."""
        if set(map(id, self.trainer.optimizers)) != self.given:
            self.given = set(map(id, self.trainer.optimizers))
            _warn("The Trainer's optimizers were replaced in the middle of the fit: the new ones are not measured.")

    def _scaler(self) -> Any:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _folder(self, state: Mapping[str, Any]) -> Path | None:
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return None
        if self.settings.run_dir is not None or not self.settings.record:
            return self.settings.run_dir
        return default_folder(self.trainer, state["guard"]["journal"]["run"] if state else None)

    def _mean_over_ranks(self, losses: Tensor) -> Tensor:
        strategy = self.trainer.strategy
        mean: Tensor = strategy.reduce(losses.to(strategy.root_device), reduce_op="mean")
        return mean

    def record_loss(self, loss: Tensor) -> None:
        """Note what ``backward`` is called with, as it was before it was scaled and divided."""
        loss, scaler, divided_by = loss.detach(), self._scaler(), self.trainer.accumulate_grad_batches
        if scaler is not None:
            loss = loss.float() / scaler.scale(torch.ones((), device=loss.device))
        if divided_by > 1 and self.module.automatic_optimization:
            loss = loss * divided_by
        if len(self.names) == 1:
            self.guard.record_loss(loss)
        else:
            self.losses.append(loss)

    def measure(self, optimizer: Any) -> None:
        """Measure the gradients of the step that this optimizer is about to make."""
        name = self.names.get(id(innermost(optimizer)))
        if name is None or self.measured_at.get(name) == self.trainer.global_step:
            return  # LBFGS evaluates its closure many times in one step; the first gradients are those of the step
        self.measured_at[name] = self.trainer.global_step
        if len(self.losses) == 1:  # of two backward passes before a step, nobody can say which is whose
            self.guard.record_loss(self.losses[0], name)
        self.losses.clear()
        taken = self.guard.waiting(name)  # by the user, before a clipping of his own
        measurement = self.guard.measure(name) if taken is None or taken is self.log.last.get(name) else taken
        self.log.measured(name, self.guard.steps[name] + 1, measurement)

    def after_batch(self, batch_idx: int) -> None:
        """Log what is due; stop a strict run that is past saving."""
        steps, log = self.guard.steps, self.log
        due = False
        if steps != self.steps:
            self.steps, log.last_x, due = steps, log.now(), log.is_due()
        ends = log.ends(batch_idx)
        if due or (steps != self.summed_up and ends and log.is_watched):
            self.guard.flush()
            row = log.write_row() if due else {}
            log.hand_over(log.what_monitors_compare(ends=ends) if log.is_watched else row)
            self.summed_up = self.handed_over = steps
        elif steps != self.handed_over and (ends or log.is_followed):
            log.hand_over({})
            self.handed_over = steps
        if log.figures.is_due:
            log.figures.draw(self.guard.history, log.last_x)
        if self.settings.prog_bar:
            log.show()
        self._stop_if_critical()

    def _heed(self, flush: Flush) -> None:
        if self.settings.strict:
            self.critical = self.critical or critical_in(flush)
        local = self.settings.through_time or self.settings.activations
        if self.settings.strict and local and self.trainer.world_size > 1 and not self.is_alone:
            # What is seen inside the model is of this process's own batch: all have to stop where one does.
            self.elsewhere |= self.trainer.strategy.reduce_boolean_decision(self.critical is not None, all=False)

    def _stop_if_critical(self) -> None:
        finding, self.critical = self.critical, None
        if finding is None and not self.elsewhere:
            return
        saved = ""
        if not self.trainer.fast_dev_run:
            name = f"gradguard-critical-step={self.trainer.global_step}.ckpt"
            path = Path(_checkpoint_folder(self.trainer)) / name
            self.trainer.save_checkpoint(path)
            saved = f" A checkpoint was saved to {path}."
        raise stopped(finding, saved)

    def end(self, exception: BaseException | None = None) -> None:
        """Look at the last steps, write the summary, and let go of the optimizers."""
        if self.guard.closed:
            return
        if exception is None:
            self.guard.flush()
            status = FAILED if self.critical is not None or self.elsewhere else "finished"
        else:
            status = f"failed: {type(exception).__name__}"
        self.is_alone = exception is not None
        self.guard.close(status, together=not self.is_alone)
        self.log.write_row()
        began = exception is None or any(self.guard.steps.values())
        if self.settings.summary and began:
            self.story = self.guard.summary()
            self.log.dashboards.text("summary", self.story, self.log.last_x)
        self.log.figures.draw(self.guard.history, self.log.last_x)
        if self.settings.report and self.folder is not None and began:
            path = write_report(self.folder, self.log.dashboards, self.log.last_x)
            self.log.figures.draw_layers(self.guard.history, self.log.last_x)
            self.story += f"\nReport: {path}" if self.story and path else ""
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


def _warn(message: str) -> None:
    warnings.warn(message, GradGuardWarning, stacklevel=4)
