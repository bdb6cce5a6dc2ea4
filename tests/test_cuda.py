"""The same on a GPU: the oracle's norms, no synchronisation between flushes, mixed devices."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradguard import Guard
from gradguard.functional import norms
from tests import reference
from tests.guard.loops import batches, float32_total, loss_of, mlp

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_norms_equal_the_oracle_and_mixed_devices_meet_on_the_first() -> None:
    tensors = [torch.randn(1_000_003), torch.randn(37, 5, dtype=torch.float64), torch.randn(999).half()]
    placed = [tensors[0].cuda(), tensors[1], tensors[2].cuda()]
    found = norms(placed)
    assert found.device.type == "cuda"
    assert found.tolist() == pytest.approx([reference.norm(t.double().numpy(), 2) for t in tensors], rel=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_nothing_synchronises_between_flushes(fused: bool) -> None:
    model = mlp().cuda()
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    guard = Guard(model, optimizer, every_n_steps=100)
    data = [(x.cuda(), y.cuda()) for x, y in batches(40)]
    loss_of(model, data[0]).backward()
    optimizer.step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in data:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            guard.record_loss(loss)
            loss.backward()
            guard.measure()
            optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert guard.host_reads == 0
    assert guard.diagnose() == []
    assert guard.host_reads == 1


@pytest.mark.parametrize("fused", [False, True])
def test_fp16_with_a_scaler(fused: bool) -> None:
    model: nn.Module = mlp().cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, fused=fused)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**24)
    guard = Guard(model, optimizer, scaler=scaler)
    expected = {}
    for step, batch in enumerate(((x.cuda(), y.cuda()) for x, y in batches(30)), start=1):
        optimizer.zero_grad()
        expected[step] = float32_total(model, batch)
        with torch.autocast("cuda", torch.float16):
            loss = loss_of(model, batch)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    totals = guard.history["grad_norm/total"]
    assert 0 < len(totals.steps) < 30
    assert totals.last.tolist() == pytest.approx([expected[s] for s in totals.steps.tolist()], rel=1e-2)
