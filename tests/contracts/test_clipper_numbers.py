"""What every clipper promises about its numbers: nothing is read on the host, what is told is what was done."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gradguard.clip import NormClip
from gradguard.clip.per_module import Grouped
from gradguard.functional import measure
from tests.clip.steps import reported
from tests.contracts.clippers import CLIPPERS, SHAPES, Loop, bits, gradients

EACH = pytest.mark.parametrize("kind", CLIPPERS)


@EACH
def test_nothing_is_read_on_the_host(kind: str) -> None:
    """A tensor on ``device="meta"`` raises at every read."""
    loop = Loop(CLIPPERS[kind](), device="meta")
    present = [torch.empty(shape, device="meta") for shape in SHAPES.values()]
    runs: list[list[Tensor | None]] = [present, present, [present[0], None, present[2]], [None, present[1], None]]
    for grads in runs:
        for options in ({}, {"scale": torch.empty((), device="meta")}, {"norm_type": 3.0}):
            loop.give(grads)
            factors = loop.clipper.decide(loop.measured(**options))
            for i, grad in enumerate(grads):
                assert grad is None or factors.of(i).device.type == "meta"
            factors.apply_()
            for number in (reported(factors), factors.clipped_norms(), factors.changed(), factors.coefficient()):
                assert number.device.type == "meta"
            loop.clipper.changes(loop.clipper._state)
            loop.clipper.state_dict()
    loop.give(present)
    loop.clipper.clip_(list(zip(SHAPES, loop.params, strict=True)))


@EACH
def test_a_step_without_any_gradient_reads_nothing_either(kind: str) -> None:
    loop = Loop(CLIPPERS[kind](), device="meta")
    for _ in range(2):
        assert reported(loop.step([None] * 3)).device.type == "meta"
    loop.clipper.clip_(list(zip(SHAPES, loop.params, strict=True)))


@EACH
@pytest.mark.parametrize("norm_type", [2.0, 3.0])
@pytest.mark.parametrize("missing", [False, True])
def test_reported_numbers_are_those_of_the_gradients_measured_anew(kind: str, norm_type: float, missing: bool) -> None:
    loop = Loop(CLIPPERS[kind]()).warm(norm_type=norm_type)
    for scale in (1.0, 40.0, 1e-3):
        grads: list[Tensor | None] = list(gradients(99, scale))
        if missing:
            grads[1] = None
        factors = loop.step(grads, norm_type=norm_type)
        now = loop.measured(norm_type=norm_type)
        before = Loop(NormClip(1.0))
        before.give(grads)
        total, coefficient, threshold, changed, changes = reported(factors, 3.0)[0].tolist()
        assert total == pytest.approx(now.total.item(), rel=1e-5)
        assert coefficient == pytest.approx((now.total / before.measured(norm_type=norm_type).total).item(), rel=1e-5)
        assert changes == 3
        assert changed == any(bits(a) != bits(b) for a, b in zip(grads, loop.grads, strict=True))
        assert threshold > 0 or (kind.startswith("PerModule") and math.isnan(threshold))
        assert factors.clipped_norms().tolist() == pytest.approx(now.norms.tolist(), rel=1e-5)
        if isinstance(factors, Grouped):
            for row, part in zip(reported(factors)[1:].tolist(), factors.parts.values(), strict=True):
                of = part.measurement
                assert row[0] == pytest.approx(measure(of.params, norm_type=of.norm_type).total.item(), rel=1e-5)


@EACH
@pytest.mark.parametrize("factor", [1024.0, 3e-3])
def test_scaled_gradients_are_clipped_as_the_unscaled_ones_times_the_scale(kind: str, factor: float) -> None:
    plain, scaled = (Loop(CLIPPERS[kind](), dtype=torch.float64) for _ in range(2))
    scale = torch.tensor(factor)
    for step in range(14):
        grads = gradients(step, 40.0 if step in (2, 9) else 1.0, torch.float64)
        scaled_grads = [g * scale.double() for g in grads]
        reports = reported(plain.step(grads)), reported(scaled.step(scaled_grads, scale=scale))
        torch.testing.assert_close(*reports, rtol=1e-9, atol=0, equal_nan=True)
        for a, b in zip(plain.grads, scaled.grads, strict=True):
            torch.testing.assert_close(a * scale.double(), b, rtol=1e-9, atol=0)
