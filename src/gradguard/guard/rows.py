"""Steps as they lie on the device, and the one transfer that makes a block for the detectors of them.

Shape legend: R = steps since the last flush, S = sampled ones among them, N = parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradguard.detect import Block, Clips, Layout, Samples
from gradguard.functional import Measurement, total_norm
from gradguard.guard.activations import LookedAt
from gradguard.guard.in_time import Looked, TimeWatch
from gradguard.guard.treatment import Treated, Treatment
from gradguard.probe.movement import Moved
from gradguard.probe.updates import Update
from gradguard.record import HostReader


class Row(NamedTuple):
    """One step.

    Attributes:
        step: counted from 1.
        measurement: its gradients; None where the loss scaler skipped the step before any hook.
        found_inf: set by a loss scaler on an optimizer that skips by itself: not 0 where it did.
        loss: a scalar, or None where none was recorded.
        treated: what was done to the gradients; None where nothing is ever done.
    """

    step: int
    measurement: Measurement | None
    found_inf: Tensor | None
    loss: Tensor | None
    treated: Treated | None = None


class Sample(NamedTuple):
    """What was measured on a sampled step: the row it belongs to, and one learning rate for each parameter."""

    row: int
    update: Update
    learning_rates: list[float]


def block_of(
    rows: Sequence[Row],
    samples: Sequence[Sample],
    layout: Layout,
    reader: HostReader,
    trainable: Sequence[bool],
    reduce_losses: Callable[[Tensor], Tensor] | None,
    treatment: Treatment | None = None,
    changes: float = 0.0,
    in_time: TimeWatch | None = None,
    looked: Sequence[Looked] = (),
    moved: Moved | None = None,
    layers: Sequence[LookedAt] = (),
    alone: bool = True,
) -> Block:
    """Bring everything over at once. Host sync: one per device."""
    n = len(layout.names)
    measured = [row.measurement.norms for row in rows if row.measurement is not None]
    device = measured[0].device if measured else torch.device("cpu")
    dtype = torch.float64 if any(norms.dtype is torch.float64 for norms in measured) else torch.float32
    nothing = torch.zeros(n, dtype=dtype, device=device)
    losses_on_device = _stacked([r.loss for r in rows], torch.nan, device)
    norms, losses, found_inf, updates, skipped, reports, *of_time = reader.read(
        [
            torch.stack([nothing if r.measurement is None else r.measurement.norms.to(device, dtype) for r in rows]),
            reduce_losses(losses_on_device) if reduce_losses else losses_on_device,
            _stacked([r.found_inf for r in rows], 0.0, device),
            torch.stack([torch.stack(s.update) for s in samples]).to(device)
            if samples
            else torch.zeros(0, 2, n, device=device),
            *_treatments(rows, treatment, device),
            *(t for one in looked for t in one.tensors()),
            *(t for one in layers for t in one.seen.tensors()),
            *([] if moved is None else [moved.ratios]),
        ]
    )
    moves = None if moved is None else _at(moved.rows, of_time.pop(), len(rows))
    of_time.reverse()
    left_out = skipped != 0
    missing = torch.zeros(len(rows), n, dtype=torch.bool)
    for i, row in enumerate(rows):
        if row.measurement is not None and row.measurement.missing:
            missing[i, list(row.measurement.missing)] = True
    steps = torch.tensor([row.step for row in rows], dtype=torch.int64)
    overflow = (found_inf != 0) | torch.tensor([row.measurement is None for row in rows], dtype=torch.bool)
    at = torch.tensor([sample.row for sample in samples], dtype=torch.int64)
    rates = torch.tensor([sample.learning_rates for sample in samples], dtype=torch.float64).reshape(len(samples), n)
    return Block(
        layout,
        steps,
        norms,
        total_norm(norms, layout.norm_type),
        missing,
        torch.tensor(trainable, dtype=torch.bool),
        overflow,
        losses,
        torch.tensor([row.loss is not None for row in rows], dtype=torch.bool),
        Samples(steps[at], updates[:, 0], updates[:, 1].masked_fill((overflow | left_out)[at, None], torch.nan), rates),
        left_out,
        None if treatment is None or treatment.clip is None else _clips(treatment, reports, changes),
        tuple(
            in_time.read(one, rows[one.row].step, taken)
            for one in looked
            for taken in [[of_time.pop() for _ in one.tensors()]]
            if in_time is not None and not overflow[one.row]
        ),
        activations=tuple(
            one.seen.read(taken, rows[one.row].step)
            for one in layers
            for taken in [[of_time.pop() for _ in one.seen.tensors()]]
            if not overflow[one.row]
        ),
        moved=None if moves is None else moves.masked_fill(overflow | left_out, torch.nan),
        alone=alone,
    )


def _at(rows: Sequence[int], values: Tensor, count: int) -> Tensor:
    """Put values at their rows, NaN where there is none: [R]."""
    whole = torch.full((count,), torch.nan, dtype=values.dtype)
    whole[rows] = values
    return whole


def _treatments(rows: Sequence[Row], treatment: Treatment | None, device: torch.device) -> list[Tensor]:
    """Give which steps were left out, [R], and what the clipper reported, [R, 1 + parts, 5], on the device."""
    parts = 0 if treatment is None or treatment.clip is None else 1 + len(treatment.parts)
    if treatment is None:
        return [torch.zeros(len(rows), device=device), torch.zeros(0, device=device)]
    treated = [Treated(None, False) if row.treated is None else row.treated for row in rows]
    read = torch.tensor([one.skipped is True for one in treated]).to(device, torch.float32, non_blocking=True)
    for i, one in enumerate(treated):
        if isinstance(one.skipped, Tensor):
            read[i] = one.skipped
    nothing = torch.full((parts, 5), torch.nan, device=device, dtype=_precise(device))
    reports = []
    for one in treated:
        report = nothing if one.report is None else torch.as_tensor(one.report, dtype=nothing.dtype).to(device)
        report = report.reshape(-1, 5)
        missing = parts - len(report)  # no part was asked where there was no gradient at all
        reports.append(nn.functional.pad(report, (0, 0, 0, missing), value=torch.nan) if missing else report)
    return [read, torch.stack(reports)]


def _clips(treatment: Treatment, reports: Tensor, before: float) -> Clips:
    """Sort what the clipper reported, [R, 1 + parts, 5]."""
    whole = reports[:, 0]
    counted = torch.cat([reports.new_full((1,), before), whole[:, 4]])
    for i in range(1, len(counted)):  # a step without a report changes nothing
        counted[i] = counted[i - 1] if counted[i].isnan() else counted[i]
    thresholds = reports[..., 2]
    return Clips(
        treatment.parts,
        treatment.limits,
        whole[:, 0],
        reports[..., 1],
        torch.where(thresholds.isfinite(), thresholds, torch.nan),
        whole[:, 3] == 1,
        counted.diff().clamp(min=0),
    )


def _precise(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


def _stacked(scalars: list[Tensor | None], otherwise: float, device: torch.device) -> Tensor:
    whole = torch.full((len(scalars),), otherwise, dtype=torch.float32, device=device)
    there = [i for i, scalar in enumerate(scalars) if scalar is not None]
    if there:
        found = [s.to(device=device, dtype=torch.float32).reshape(()) for s in scalars if s is not None]
        whole[there] = torch.stack(found)
    return whole
