"""Update ratios against a full comparison of all weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradguard.probe import UpdateProbe
from gradguard.probe import updates as module
from tests import reference


def params() -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.randn(3, 4)),
        nn.Parameter(torch.randn(600, 500)),
        nn.Parameter(torch.randn(4, 3, 3, 3).to(memory_format=torch.channels_last)),
        nn.Parameter(torch.randn(())),
    ]


def compare(before: list[torch.Tensor], after: list[nn.Parameter]) -> list[float]:
    return [
        reference.norm((a.detach() - b).numpy(), 2) / reference.norm(b.numpy(), 2)
        for b, a in zip(before, after, strict=True)
    ]


def test_ratios_equal_the_full_comparison_for_small_parameters_and_come_close_for_large_ones() -> None:
    weights = params()
    before = [p.detach().clone() for p in weights]
    probe = UpdateProbe(weights)
    with torch.no_grad():
        for p in weights:
            p.add_(torch.randn_like(p), alpha=1e-2)
    update = probe.finish()
    expected = compare(before, weights)
    assert update.ratios.tolist() == pytest.approx(expected, rel=3e-2)
    assert update.ratios[[0, 2, 3]].tolist() == pytest.approx([expected[i] for i in (0, 2, 3)], rel=1e-4)
    assert update.weight_norms.tolist() == pytest.approx([reference.norm(b.numpy(), 2) for b in before], rel=1e-6)


@pytest.mark.parametrize(
    ("rows", "columns", "covered"),
    [(1024, 1000, 1.0), (1024, 1024, 1.0), (256, 1024, 1.0), (256, 784, 1.0), (16, 8192, 0.5), (50_257, 768, 1.0)],
)
def test_the_sample_of_a_large_parameter_spreads_over_its_rows_and_columns(
    rows: int, columns: int, covered: float
) -> None:
    at_column = module._sample(torch.arange(float(columns)).expand(rows, columns).contiguous(), 8192)
    at_row = module._sample(torch.arange(float(rows))[:, None].expand(rows, columns).contiguous(), 8192)
    assert 3500 < at_column.numel() <= 8192
    assert len(set(at_column.flatten().tolist())) >= covered * columns
    seen = sorted(set(at_row.flatten().tolist()))
    assert seen[0] == 0
    assert seen[-1] > 0.9 * rows - 2
    assert len(seen) >= min(rows, 200)


def test_the_samples_of_many_parameters_stay_within_the_budget() -> None:
    many = [nn.Parameter(torch.zeros(100, 100)) for _ in range(3000)]
    probe = UpdateProbe(many)
    assert sum(s.numel() for s in probe.before) <= module.BUDGET


def test_weights_that_are_zero_have_no_ratio_and_half_types_have_one() -> None:
    weights = [nn.Parameter(torch.zeros(3)), nn.Parameter(torch.full((300,), 256.0, dtype=torch.bfloat16))]
    probe = UpdateProbe(weights)
    with torch.no_grad():
        for p in weights:
            p.add_(1.0)  # rounds to nothing in bfloat16: 257 has no number of its own
    ratios = probe.finish().ratios.tolist()
    assert math.isnan(ratios[0])
    assert ratios[1] == 0


def test_the_probe_keeps_no_view_of_the_weights() -> None:
    weights = params()
    probe = UpdateProbe(weights)
    storages = {p.untyped_storage().data_ptr() for p in weights}
    assert all(sample.untyped_storage().data_ptr() not in storages for sample in probe.before)
    probe.finish()
    assert probe.before == []
