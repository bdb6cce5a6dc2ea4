"""One fit of one Trainer: the guard that all callbacks share, and what of its numbers goes where."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from gradguard.detect import Finding, Severity
from gradguard.errors import CriticalFindingError
from gradguard.functional import Histograms, Measurement, histograms
from gradguard.guard import Flush, Guard
from gradguard.guard.hooks import innermost
from gradguard.guard.modules import by_module, by_parameter
from gradguard.lightning.dashboards import Dashboards
from gradguard.lightning.folder import default_folder
from gradguard.lightning.keys import Keys
from gradguard.lightning.optimizers import named_optimizers
from gradguard.lightning.settings import Settings
from gradguard.lightning.totals import Totals
from gradguard.record import HostReader

logger = logging.getLogger("gradguard")
_SHOWN = {"grad_norm": "grad_norms", "weight_norm": "weight_norms", "update_ratio": "update_ratios"}


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
        self.key = Keys()
        self.dashboards = Dashboards(trainer.loggers if trainer.is_global_zero else (), self.key)
        optimizers = named_optimizers(trainer, module)
        self.names = {id(optimizer): name for name, optimizer in optimizers.items()}
        self.totals = {name: Totals() for name in optimizers}
        self.axis: dict[str, dict[int, int]] = {name: {} for name in optimizers}  # x of the steps since the last flush
        self.last_x, self.story = 0, ""
        self.last_total: dict[str, Tensor] = {}
        self.measured_at: dict[str, int] = {}
        self.logged_at: dict[str, int] = {}
        self.reader = HostReader()
        self.critical: Finding | None = None  # to be raised once the batch is over
        watched = {str(getattr(callback, "monitor", None)) for callback in trainer.callbacks}
        self.is_watched = any(name.startswith("gradguard/") for name in watched)
        self.is_followed = any(name.startswith("gradguard/") and name.endswith("grad_norm/total") for name in watched)
        self.guard = Guard(
            trainer.model,
            optimizers,
            every_n_steps=settings.every_n_steps,
            norm_type=settings.norm_type,
            detectors=settings.detectors,
            max_points=settings.max_points,
            scaler=getattr(trainer.precision_plugin, "scaler", None),
            run_dir=self._folder(state),
            reduce_losses=self._mean_over_ranks if trainer.world_size > 1 else None,
        )
        self.guard.listen(self._take)
        if state:
            self.guard.load_state_dict(state["guard"])
            for name, totals in self.totals.items():
                totals.load_state_dict(state["totals"][name])

    def state_dict(self) -> dict[str, Any]:
        """Give what a fit that is resumed goes on from."""
        guard = self.guard.state_dict()
        return {"guard": guard, "totals": {name: totals.state_dict() for name, totals in self.totals.items()}}

    def _folder(self, state: Mapping[str, Any]) -> Path | None:
        if self.trainer.fast_dev_run or not self.trainer.is_global_zero:
            return None
        if self.settings.run_dir is not None or not self.settings.record:
            return self.settings.run_dir
        return default_folder(self.trainer, state["guard"]["journal"]["run"] if state else None)

    def _mean_over_ranks(self, losses: Tensor) -> Tensor:
        strategy = self.trainer.strategy  # losses of nothing but overflows lie on the host, which NCCL can't reduce
        mean: Tensor = strategy.reduce(losses.to(strategy.root_device), reduce_op="mean")
        return mean

    def record_loss(self, loss: Tensor) -> None:
        """Note what ``backward`` is called with, as it was before it was scaled and divided."""
        loss = loss.detach()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
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
        measurement = self.guard.measure(name)
        self.last_total[name] = measurement.total
        step = self.guard.steps[name] + 1
        self.axis[name][step] = self.last_x = self._now()
        if self.settings.histograms and self.trainer.loggers and step % self.settings.every_n_steps == 0:
            self._log_histograms(name, measurement)

    def _log_histograms(self, name: str, measurement: Measurement) -> None:
        params = zip(measurement.names, measurement.params, strict=True)
        grads = {f"{self.prefix(name)}grad_histogram/{n}": p.grad for n, p in params if p.grad is not None}
        if grads:
            scale = measurement.scale
            found = histograms([grad if scale is None else grad / scale for grad in grads.values()])
            self.dashboards.histograms(list(grads), Histograms(*self.reader.read(found)), self._now())

    def prefix(self, name: str) -> str:
        """Say what the series of an optimizer begin with."""
        return f"{name}/" if len(self.names) > 1 else ""

    def _now(self) -> int:
        """Give the x at which the Trainer's loggers stand."""
        loop = self.trainer.fit_loop.epoch_loop
        return int(getattr(loop, "_batches_that_stepped", self.trainer.global_step))

    def after_batch(self, batch_idx: int) -> None:
        """Log what is due; stop a strict run that is past saving."""
        steps = self.guard.steps
        if steps == self.logged_at:
            return  # accumulating
        trainer = self.trainer
        every = trainer.log_every_n_steps
        due = bool(every) and (self._now() + 1) % every == 0
        ends = trainer.is_last_batch or _comes_round(batch_idx + 1, trainer.val_check_batch)
        if due or (ends and self.is_watched):
            self.guard.flush()
            values = {key: value for totals in self.totals.items() for key, value in self._summary(*totals).items()}
            self._log(values)
        elif ends or self.is_followed or self.settings.prog_bar:
            self._log({})
        self.logged_at = steps
        self._stop_if_critical()

    def _summary(self, name: str, totals: Totals) -> dict[str, float]:
        return {self.prefix(name) + key: value for key, value in totals.since_last_time().items()}

    def _log(self, values: Mapping[str, float]) -> None:
        """Hand a few numbers to ``self.log``, so that EarlyStopping, checkpoints and the progress bar see them.

        Not for its loggers: what the Trainer writes to a logger that fails ends the fit.
        """
        self.dashboards.scalars(values, self._now())
        if self.trainer.barebones:
            return
        totals = {self.key(f"{self.prefix(n)}grad_norm/total"): total for n, total in self.last_total.items()}
        how = {"on_step": True, "on_epoch": False, "logger": False, "batch_size": 1}
        self.module.log_dict({**totals, **{self.key(name): value for name, value in values.items()}}, **how)
        if self.settings.prog_bar:  # a bar has no room for long names
            bar = {self.key(f"{self.prefix(name)}norm"): total for name, total in self.last_total.items()}
            self.module.log_dict(bar, prog_bar=True, **how)

    def _take(self, flush: Flush) -> None:
        """Send out what a flush brought."""
        name, axis = flush.optimizer, self.axis[flush.optimizer]
        self.totals[name].update(flush.block.totals, flush.block.overflow, flush.block.samples.update_ratios)
        if self.settings.detail != "total" and self.dashboards.takers["numbers"]:
            sampled = (by_module if self.settings.detail == "module" else by_parameter)(flush.block)
            for row, step in enumerate(sampled.steps.tolist()):
                values = {
                    f"{flush.prefix}{key}/{place}": number
                    for key, field in _SHOWN.items()
                    for place, number in zip(sampled.names, getattr(sampled, field)[row].tolist(), strict=True)
                    if key != "update_ratio" or not math.isnan(number)
                }
                self.dashboards.scalars(values, axis.get(step, self._now()))
        for event in flush.events:
            finding = event.finding
            x = axis.get(event.step, self._now())
            if self.trainer.is_global_zero:
                level = logging.INFO if finding.severity is Severity.INFO or not finding.active else logging.WARNING
                logger.log(level, "%s", finding.headline)
            self.dashboards.scalars({f"{flush.prefix}finding/{finding.symptom.value}": float(finding.active)}, x)
            self.dashboards.text(f"{flush.prefix}finding/{finding.symptom.value}", str(finding), x)
            if self.settings.strict and finding.severity is Severity.CRITICAL and finding.active:
                self.critical = self.critical or finding
        last = int(flush.block.steps[-1])
        self.axis[name] = {step: x for step, x in axis.items() if step > last}

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
        for name, totals in self.totals.items():
            self.dashboards.scalars(self._summary(name, totals), self.last_x)
        if self.settings.summary:
            self.story = self.guard.summary()
            self.dashboards.text("summary", self.story, self.last_x)
        if exception is None:
            self._stop_if_critical()

    def tell(self) -> None:
        """Print the summary, once: where the progress bar is gone."""
        story, self.story = self.story, ""
        if story and self.trainer.is_global_zero:
            self.trainer.print(story)


def _comes_round(count: int, every: Any) -> bool:
    return isinstance(every, int | float) and math.isfinite(every) and every > 0 and count % every == 0


def _checkpoint_folder(trainer: Any) -> str:
    saved_to = (getattr(callback, "dirpath", None) for callback in trainer.checkpoint_callbacks)
    return str(next(filter(None, saved_to), None) or trainer.log_dir or trainer.default_root_dir)
