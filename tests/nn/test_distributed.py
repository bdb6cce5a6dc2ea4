"""Two gloo processes: DDP and FSDP2 train as one process does on the joined batch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.contracts.recurrent import MODULES
from tests.nn import workers

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("how", ["ddp", "fsdp2"])
def test_two_processes_train_as_one(how: str, tmp_path: Path) -> None:
    mp.spawn(workers.run, args=(2, str(tmp_path), how), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for kind in MODULES:
        expected = workers.train(workers.model(kind), slice(None))
        for step, loss in enumerate(expected):
            mean = sum(rank[kind][step] for rank in ranks) / 2
            assert mean == pytest.approx(loss, rel=1e-9), f"{kind}, step {step}"
