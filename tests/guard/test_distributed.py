"""Two gloo processes: DDP equals one process on the joined batch, FSDP2 equals the unsharded model."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from gradguard import Guard
from tests import reference
from tests.guard import workers
from tests.guard.loops import batches, mlp, train

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def spawn(worker: Callable[[int, int, str], None], folder: Path, prefix: str = "") -> list[dict]:
    mp.spawn(worker, args=(2, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def assert_equal_histories(found: list[dict], guard: Guard, rel: float, without: Collection[str] = ()) -> None:
    guard.diagnose()
    for rank in found:
        kept = {key: points for key, points in guard.history.items() if not key.startswith(workers.OWN)}
        assert set(rank["history"]) == set(kept) - set(without)
        assert rank["findings"] == 0
        for key, points in kept.items():
            if key in without:
                continue
            steps, last = rank["history"][key]
            assert torch.equal(steps, points.steps)
            sampled = key.startswith("update_ratio/")  # a shard is sampled at other places than the whole
            torch.testing.assert_close(last, points.last, rtol=3e-2 if sampled else rel, atol=1e-9, msg=key)
    first, second = (rank["history"] for rank in found)
    for key in first:
        assert torch.equal(first[key][1].nan_to_num(), second[key][1].nan_to_num()), f"the ranks differ in {key}"


def test_ddp_totals_equal_one_process_on_the_joined_batch(tmp_path: Path) -> None:
    found = spawn(workers.ddp, tmp_path)
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=3)
    train(model, optimizer, batches(workers.BATCHES))
    assert_equal_histories(found, guard, rel=1e-5)


def test_fsdp2_norms_equal_the_unsharded_ones(tmp_path: Path) -> None:
    found = spawn(workers.fsdp2, tmp_path)
    model = workers.sharded_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=3)
    for x, y in batches(workers.BATCHES):
        optimizer.zero_grad()
        nn.functional.mse_loss(workers.forward(model, x), y).backward()
        optimizer.step()
    # What moves at each step is not sampled of shards: to tell the whole takes all ranks.
    assert_equal_histories(found, guard, rel=1e-6, without={"update_norm/relative"})
    optimizer.zero_grad()
    x, y = batches(1)[0]
    nn.functional.mse_loss(workers.forward(model, x), y).backward()
    for rank in range(2):
        saved = torch.load(tmp_path / f"orders-{rank}.pt")
        for p, norms in saved["orders"].items():
            expected = [reference.norm(param.grad.numpy(), p) for param in model.parameters()]
            assert norms.tolist() == pytest.approx(expected, rel=2e-6)
        expected = [reference.norm(param.grad.numpy(), 2) for param in model.parameters()]
        assert saved["exact"].tolist() == pytest.approx(expected, rel=1e-6)


def test_every_placement_and_two_meshes_at_once(tmp_path: Path) -> None:
    for rank in spawn(workers.placements, tmp_path):
        for p, found in rank["found"].items():
            whole = reference.norm(rank["whole"].numpy(), p)
            assert found[:7].tolist() == pytest.approx([whole] * 7, rel=1e-6)
            assert found[7].item() == pytest.approx(reference.norm(rank["whole"][:1].numpy(), p), rel=1e-6)
