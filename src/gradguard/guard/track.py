"""What a guard keeps for one optimizer: the rows measured since the last flush, and what became of the earlier ones.

Shape legend: R = steps since the last flush, S = sampled ones among them, N = parameters.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.detect import AbstractDetector, Block, Finding, Samples
from gradguard.functional import Measurement, measure, total_norm
from gradguard.guard.hooks import ids_of
from gradguard.guard.layout import known_parameters, layout_of
from gradguard.probe import UpdateProbe
from gradguard.probe.updates import Update
from gradguard.record import History, HostReader


class Row(NamedTuple):
    """One step, still on the device."""

    step: int
    measurement: Measurement
    found_inf: Tensor | None
    loss: Tensor | None


class Sample(NamedTuple):
    """What was measured on a sampled step, still on the device."""

    row: int
    update: Update
    learning_rates: list[float]


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
        self._lay_out()

    def _lay_out(self) -> None:
        self.ids = ids_of(self.optimizer.param_groups)
        self.params, self.layout = layout_of(self.optimizer, self.name, known_parameters(self.models))

    def refresh(self) -> None:
        """Notice parameters that were added, removed or replaced since the last step."""
        if ids_of(self.optimizer.param_groups) != self.ids:
            self.flush()
            self.taken = None
            self._lay_out()

    def measured(self, scale: Tensor | None) -> Measurement:
        """Measure the gradients as they are. Host sync: none, but one while a non-finite norm is being told apart."""
        result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale)
        if self.exact and not bool(result.finite):
            self.suspect = True
            result = measure(self.params, names=self.layout.names, norm_type=self.norm_type, scale=scale, exact=True)
        return result

    def before_step(self, loss: Tensor | None) -> None:
        """Take the row of the step that is about to be made."""
        self.fired, self.unscaled = True, False
        self.step += 1
        # Both are set by GradScaler for the duration of a step, on optimizers that unscale by themselves.
        scale, found_inf = (getattr(self.optimizer, name, None) for name in ("grad_scale", "found_inf"))
        if scale is not None:
            scale = scale.clone()  # the scaler changes its own in place
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

    def skipped(self) -> None:
        """Count a step that the loss scaler did not make."""
        self.step += 1
        self.overflows += 1
        self.taken, self.unscaled = None, False
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        if self.step % self.every == 0:
            self.flush()
            # Here and not at a flush that one rank asks for: the exact norm of sharded gradients takes all ranks.
            self.exact, self.suspect = self.suspect, False

    def _learning_rates(self) -> list[float]:
        rates = {id(p): group["lr"] for group in self.optimizer.param_groups for p in group["params"] if "lr" in group}
        found = (rates.get(id(p)) for p in self.params)
        return [float(rate) if isinstance(rate, float | int) else torch.nan for rate in found]

    def flush(self) -> None:
        """Bring what was measured to the host and look at it. Host sync: one per device."""
        if not self.rows or not self.params:
            self.rows, self.samples = [], []
            return
        block = self._block()
        has_loss = torch.tensor([row.loss is not None for row in self.rows])
        self.rows, self.samples = [], []
        judged = ~block.overflow
        bad = judged & ~block.grad_norms.isfinite().all(dim=1)
        self.overflows += int(block.overflow.sum())
        self.non_finite += int(bad.sum())
        self.suspect |= bool(bad.any())
        for detector in self.detectors:
            detector.observe(block)
        self._remember(block, has_loss)

    def _block(self) -> Block:
        rows, samples, n = self.rows, self.samples, len(self.params)
        device = rows[0].measurement.norms.device
        dtype = torch.float64 if any(r.measurement.norms.dtype is torch.float64 for r in rows) else torch.float32
        norms, losses, found_inf, updates = self.reader.read(
            [
                torch.stack([r.measurement.norms.to(device, dtype) for r in rows]),
                _stacked([r.loss for r in rows], torch.nan, device),
                _stacked([r.found_inf for r in rows], 0.0, device),
                torch.stack([torch.stack(s.update) for s in samples])
                if samples
                else torch.zeros(0, 2, n, device=device),
            ]
        )
        missing = torch.zeros(len(rows), n, dtype=torch.bool)
        for i, row in enumerate(rows):
            if row.measurement.missing:
                missing[i, list(row.measurement.missing)] = True
        steps = torch.tensor([r.step for r in rows])
        overflow = found_inf != 0
        at = torch.tensor([s.row for s in samples], dtype=torch.int64)
        moved = torch.where(overflow[at, None], torch.nan, updates[:, 1])
        rates = torch.tensor([s.learning_rates for s in samples], dtype=torch.float64).reshape(-1, n)
        return Block(
            self.layout,
            steps,
            norms,
            total_norm(norms, self.norm_type),
            missing,
            overflow,
            losses,
            Samples(steps[at], updates[:, 0], moved, rates),
        )

    def _remember(self, block: Block, has_loss: Tensor) -> None:
        names, whole = block.layout.names, ("",)
        kept = ~block.overflow  # an overflow has no gradient to show
        steps, sampled = block.steps[kept], block.samples
        for group, columns, at, values in (
            ("grad_norm/total", whole, steps, block.totals[kept, None]),
            ("grad_norm", names, steps, block.grad_norms[kept]),
            ("weight_norm", names, sampled.steps, sampled.weight_norms),
            ("update_ratio", names, sampled.steps, sampled.update_ratios),
        ):
            self.history.extend(self.prefix + group, columns, at, values)
        if has_loss.any():
            self.history.extend(f"{self.prefix}loss", whole, block.steps[has_loss], block.losses[has_loss, None])

    def findings(self) -> list[Finding]:
        """Collect what the detectors have found so far."""
        return [finding for detector in self.detectors for finding in detector.findings()]


def is_sampled(step: int, every: int) -> bool:
    """Say whether the dear measurements are due: at steps 1, 2, 4, 8 ..., then every ``every``; equal on all ranks."""
    return step % every == 0 or (step < every and step & (step - 1) == 0)


def _stacked(scalars: list[Tensor | None], otherwise: float, device: torch.device) -> Tensor:
    there = [i for i, scalar in enumerate(scalars) if scalar is not None]
    whole = torch.full((len(scalars),), otherwise, device=device)
    if there:
        found = torch.stack([s.reshape(()) for s in scalars if s is not None])
        whole[there] = found.to(device=device, dtype=torch.float32)
    return whole
