"""What a guard keeps for one optimizer: the rows measured since the last flush, and what became of the earlier ones."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.detect import AbstractDetector, Block, Finding
from gradguard.functional import Measurement, measure
from gradguard.guard.hooks import trainable_ids
from gradguard.guard.layout import known_parameters, layout_of
from gradguard.guard.rows import Row, Sample, block_of
from gradguard.probe import UpdateProbe
from gradguard.record import History, HostReader

RESERVED = frozenset({"total", "clipped"})  # names under grad_norm/ that are not parameters


@final
class Track:
    """Measures one optimizer's steps and hands them to its detectors and its history, ``every`` steps at a time."""

    def __init__(
        self,
        optimizer: Optimizer,
        name: str,
        models: Mapping[str, nn.Module],
        detectors: Sequence[AbstractDetector],
        *,
        norm_type: float,
        every: int,
        history: History,
        reader: HostReader,
        prefix: str,
    ) -> None:
        self.optimizer, self.name, self.models = optimizer, name, models
        self.detectors = tuple(copy.deepcopy(d) for d in detectors)
        self.norm_type, self.every = norm_type, every
        self.history, self.reader, self.prefix = history, reader, prefix
        self.step = self.overflows = self.non_finite = 0
        self.rows: list[Row] = []
        self.samples: list[Sample] = []
        self.probe: UpdateProbe | None = None
        self.taken: Measurement | None = None  # by guard.measure(), for the step to come
        self.fired = self.unscaled = self.exact = self.suspect = False
        self._lay_out(frozenset())

    def _lay_out(self, known: frozenset[int]) -> None:
        self.ids = trainable_ids(self.optimizer.param_groups, known)
        self.known = frozenset(self.ids)
        parameters = known_parameters(self.models)
        self.params, self.layout = layout_of(self.optimizer, self.name, parameters, self.known, self.norm_type)
        self.keys = tuple(f"param.{name}" if name in RESERVED else name for name in self.layout.names)

    def refresh(self) -> None:
        """Notice parameters that were added, removed, replaced or unfrozen since the last step."""
        if trainable_ids(self.optimizer.param_groups, self.known) != self.ids:
            self.flush()
            self.taken = None
            self._lay_out(self.known)

    def measured(self, scale: Tensor | None) -> Measurement:
        """Measure the gradients as they are. Host sync: none, but one while a non-finite norm is being told apart."""
        result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale)
        if self.exact and not self.reader.read([result.finite])[0]:
            self.suspect = True
            result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale, exact=True)
        return result

    def before_step(self, loss: Tensor | None) -> None:
        """Take the row of the step that is about to be made."""
        if len(self.rows) >= self.every:  # the steps before this one were broken off by exceptions
            self.flush()
        self.fired, self.unscaled, self.probe = True, False, None
        self.step += 1
        # Both are set by GradScaler for the duration of a step, on optimizers that unscale by themselves.
        scale, found_inf = (getattr(self.optimizer, name, None) for name in ("grad_scale", "found_inf"))
        if scale is not None:
            scale = scale.clone()  # the scaler changes its own in place
            if self.taken is not None and self.taken.scale is None:
                self.taken = None  # it was taken without a word of the scaler: still scaled
        measurement, self.taken = self.taken or self.measured(scale), None
        self.rows.append(Row(self.step, measurement, found_inf, loss))
        if is_sampled(self.step, self.every):
            self.probe = UpdateProbe(self.params)

    def after_step(self) -> None:
        """Finish the sample of the step that was made; flush where it is due."""
        if self.probe is not None and self.rows:
            self.samples.append(Sample(len(self.rows) - 1, self.probe.finish(), self._learning_rates()))
        self.probe = None
        self._flush_if_due()

    def skipped(self, loss: Tensor | None) -> None:
        """Count a step that the loss scaler did not make."""
        self.step += 1
        self.rows.append(Row(self.step, None, None, loss))
        self.taken, self.unscaled = None, False
        self._flush_if_due()

    def _learning_rates(self) -> list[float]:
        rates = {id(p): group.get("lr", 1.0) for group in self.optimizer.param_groups for p in group["params"]}
        found = (rates.get(id(p), torch.nan) for p in self.params)
        # One that lies on a device would have to be read: unknown.
        return [float(rate) if not isinstance(rate, Tensor) or rate.is_cpu else torch.nan for rate in found]

    def _flush_if_due(self) -> None:
        if self.step % self.every == 0:
            self.flush()
            # Here and not at a flush that one rank asks for: the exact norm of sharded gradients takes all ranks.
            self.exact, self.suspect = self.suspect, False

    def flush(self) -> None:
        """Bring what was measured to the host and look at it. Host sync: one per device."""
        rows, samples, self.rows, self.samples = self.rows, self.samples, [], []
        if not rows:
            return
        elsewhere = torch.get_default_device().type != "cpu"  # set_default_device: what follows is the host's
        with torch.device("cpu") if elsewhere else nullcontext():
            trainable = [p.requires_grad for p in self.params]
            block = block_of(rows, samples, self.layout, self.reader, trainable)
            bad = ~block.overflow & ~block.grad_norms.isfinite().all(dim=1)
            self.overflows += int(block.overflow.sum())
            self.non_finite += int(bad.sum())
            self.suspect |= bool(bad.any())
            self._remember(block)
            for detector in self.detectors:
                detector.observe(block)

    def _remember(self, block: Block) -> None:
        whole, sampled = ("",), block.samples
        kept = ~block.overflow  # an overflow has no gradient to show
        for group, columns, steps, values in (
            ("grad_norm/total", whole, block.steps[kept], block.totals[kept, None]),
            ("grad_norm", self.keys, block.steps[kept], block.grad_norms[kept].float()),
            ("weight_norm", self.layout.names, sampled.steps, sampled.weight_norms.float()),
            ("update_ratio", self.layout.names, sampled.steps, sampled.update_ratios.float()),
            (
                "loss",
                whole if block.has_loss.any() else (),
                block.steps[block.has_loss],
                block.losses[block.has_loss, None],
            ),
        ):
            if columns:
                self.history.extend(self.prefix + group, columns, steps, values)

    def findings(self) -> list[Finding]:
        """Collect what the detectors have found so far."""
        return [finding for detector in self.detectors for finding in detector.findings()]


def is_sampled(step: int, every: int) -> bool:
    """Say whether dear measurements are due: at 1 to 4, 8, 16 ..., then each ``every`` steps; alike on all ranks."""
    return step % every == 0 or (step < every and (step < 4 or step & (step - 1) == 0))
