"""What of the guard's numbers goes where: to the Trainer's loggers, to those who monitor, to the progress bar."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from typing import Any, final

from gradguard.detect import Severity
from gradguard.functional import Histograms, Measurement, histograms
from gradguard.guard import Flush, activation_tables
from gradguard.guard.modules import by_module, by_parameter
from gradguard.guard.time_tables import scalars_of
from gradguard.lightning.charts import charts
from gradguard.lightning.dashboards import Dashboards
from gradguard.lightning.figures import Figures
from gradguard.lightning.keys import Keys
from gradguard.lightning.settings import Settings
from gradguard.lightning.totals import Totals
from gradguard.record import Event, HostReader

logger = logging.getLogger("gradguard")
_SHOWN = {"grad_norm": "grad_norms", "weight_norm": "weight_norms", "update_ratio": "update_ratios"}


@final
class Log:
    """Writes to the dashboards on the Trainer's own x axis, and hands a few numbers to ``self.log``.

    Args:
        trainer: the Trainer.
        module: the LightningModule.
        settings: what the callbacks want together.
        names: of the optimizers.
    """

    def __init__(self, trainer: Any, module: Any, settings: Settings, names: Iterable[str]) -> None:
        self.trainer, self.module, self.settings = trainer, module, settings
        self.key = Keys()
        writes = trainer.is_global_zero and trainer.log_every_n_steps  # 0: never, for Lightning
        self.dashboards = Dashboards(trainer.loggers if writes else (), self.key)
        self.totals = {name: Totals() for name in names}  # since the last row
        self.interval = {name: Totals() for name in self.totals}  # since the last validation or end of an epoch
        self.axis: dict[str, dict[int, int]] = {name: {} for name in self.totals}  # x of the steps to be flushed
        self.last_x = self.now()
        self.period = self._period()  # in which the summaries were last written
        self.last: dict[str, Measurement] = {}
        self.dashboards.charts(charts(settings, map(self.prefix, self.totals)))
        self.figures = Figures(self.dashboards if settings.figures else None)
        self.reader = HostReader()
        watched = {str(getattr(one, "monitor", "")) for one in [*trainer.callbacks, *trainer.lr_scheduler_configs]}
        self.is_watched = any(name.startswith("gradguard/") for name in watched)
        self.is_followed = any(name.startswith("gradguard/") and name.endswith("grad_norm/total") for name in watched)

    def prefix(self, name: str) -> str:
        """Say what the series of an optimizer begin with."""
        return f"{name}/" if len(self.totals) > 1 else ""

    def now(self) -> int:
        """Give the x at which the Trainer's loggers stand."""
        loop = self.trainer.fit_loop.epoch_loop
        return int(getattr(loop, "_batches_that_stepped", self.trainer.global_step))

    def measured(self, name: str, step: int, measurement: Measurement) -> None:
        """Note the gradients of the step that is about to be made."""
        self.last[name] = measurement
        self.axis[name][step] = self.last_x = self.now()
        if self.settings.histograms and self.trainer.loggers and step % self.settings.every_n_steps == 0:
            params = zip(measurement.names, measurement.params, strict=True)
            grads = {f"{self.prefix(name)}grad_histogram/{n}": p.grad for n, p in params if p.grad is not None}
            if grads:
                scale = measurement.scale
                found = histograms([grad if scale is None else grad / scale for grad in grads.values()])
                self.dashboards.histograms(list(grads), Histograms(*self.reader.read(found)), self.last_x)

    def take(self, flush: Flush) -> None:
        """Send out what a flush brought."""
        block, axis = flush.block, self.axis[flush.optimizer]
        for totals in (self.totals, self.interval) if self.is_watched else (self.totals,):
            totals[flush.optimizer].take(block)
        if self.settings.detail != "total" and self.dashboards.takers["numbers"]:
            sampled = (by_module if self.settings.detail == "module" else by_parameter)(block)
            for row, step in enumerate(sampled.steps.tolist()):
                values = {
                    f"{flush.prefix}{key}/{place}": number
                    for key, field in _SHOWN.items()
                    for place, number in zip(sampled.names, getattr(sampled, field)[row].tolist(), strict=True)
                    if key != "update_ratio" or not math.isnan(number)
                }
                self.dashboards.scalars(values, axis.get(step, self.now()))
            for seen in block.activations:
                values = {flush.prefix + name: x for name, x in activation_tables.scalars_of(seen).items()}
                self.dashboards.scalars(values, axis.get(seen.step, self.now()))
        for sample in block.in_time:
            self.dashboards.scalars(
                {flush.prefix + name: value for name, value in scalars_of(sample).items()},
                axis.get(sample.step, self.now()),
            )
            self.figures.seen(flush.prefix, sample)
        self.figures.layouts[flush.prefix] = block.layout
        for event in flush.events:
            self._say(event, flush.prefix, axis.get(event.step, self.now()))
        last = int(block.steps[-1])
        self.axis[flush.optimizer] = {step: x for step, x in axis.items() if step > last}

    def _say(self, event: Event, prefix: str, x: int) -> None:
        finding = event.finding
        if self.trainer.is_global_zero:
            level = logging.INFO if finding.severity is Severity.INFO or not finding.active else logging.WARNING
            bar = getattr(self.trainer.progress_bar_callback, "is_enabled", False)  # it stands in the line
            logger.log(level, "%s%s", "\n" if bar else "", finding.headline)
        if finding.active and finding.severity is Severity.CRITICAL:
            self.dashboards.alert(f"{prefix}{finding.symptom.value}", str(finding))
        name = f"{prefix}finding/{finding.symptom.value}"
        self.dashboards.scalars({name: float(finding.active)}, x)
        self.dashboards.text(name, str(finding), x)

    def ends(self, batch_idx: int) -> bool:
        """Say whether something that may monitor comes after this batch: the end of an epoch, or a validation."""
        trainer, every = self.trainer, self.trainer.val_check_batch
        if trainer.is_last_batch:
            return True
        if not isinstance(every, int | float):
            return bool(trainer.enable_validation)  # by the clock: any batch may be the one
        across_epochs = trainer.check_val_every_n_epoch is None
        count = (trainer.fit_loop.total_batch_idx if across_epochs else batch_idx) + 1
        return bool(0 < every < math.inf and count % every == 0)

    def is_due(self) -> bool:
        """Say whether the Trainer has come to write to its loggers since the last time."""
        period, self.period = self.period, self._period(1)
        return self.period > period

    def _period(self, ahead: int = 0) -> int:
        every = self.trainer.log_every_n_steps
        return (self.now() + ahead) // every if every else 0

    def write_row(self) -> dict[str, float]:
        """Write what happened since the last row, and give it."""
        row = self._so_far(self.totals)
        self.dashboards.scalars(row, self.last_x)
        for totals in self.totals.values():
            totals.begin_anew()
        return row

    def what_monitors_compare(self, *, ends: bool) -> dict[str, float]:
        """Give what happened since the last validation or end of an epoch, however often a row was written."""
        values = self._so_far(self.interval)
        if ends:
            for interval in self.interval.values():
                interval.begin_anew()
        return values

    def _so_far(self, totals: Mapping[str, Totals]) -> dict[str, float]:
        each = ((self.prefix(name), one.so_far()) for name, one in totals.items())
        return {prefix + key: value for prefix, values in each for key, value in values.items()}

    def hand_over(self, values: Mapping[str, float]) -> None:
        """Give ``self.log`` the totals and ``values``, for EarlyStopping, checkpoints and schedulers.

        Not for its loggers: what the Trainer writes to a logger that fails ends the fit.
        """
        totals = {f"{self.prefix(name)}grad_norm/total": measurement.total for name, measurement in self.last.items()}
        self._to_trainer({**totals, **values}, prog_bar=False)

    def show(self) -> None:
        """Give the totals to the progress bar, under a name that it has room for."""
        totals = {f"{self.prefix(name)}norm": measurement.total for name, measurement in self.last.items()}
        self._to_trainer(totals, prog_bar=True)

    def _to_trainer(self, values: Mapping[str, Any], *, prog_bar: bool) -> None:
        if not self.trainer.barebones:
            metrics = {self.key(name): value for name, value in values.items()}
            self.module.log_dict(metrics, on_step=True, on_epoch=False, logger=False, prog_bar=prog_bar, batch_size=1)

    def state_dict(self) -> dict[str, Any]:
        """Give what was summed up so far, by optimizer."""
        return {name: [self.totals[name].state_dict(), self.interval[name].state_dict()] for name in self.totals}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from it."""
        for name, (totals, interval) in state.items():
            self.totals[name].load_state_dict(totals)
            self.interval[name].load_state_dict(interval)
