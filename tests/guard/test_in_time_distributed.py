"""Two gloo processes look through time: each sees its own half of the batch, sharded or not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from tests.guard import in_time_workers


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_under_ddp_and_fsdp2_a_rank_sees_its_own_batch(tmp_path: Path) -> None:
    mp.spawn(in_time_workers.run, args=(2, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in in_time_workers.KINDS:
        for rank in ranks:
            plain, sharded = rank[f"{name}, ddp"], rank[f"{name}, fsdp2"]
            assert len(plain) > 20
            assert plain.keys() == sharded.keys()
            for key, values in plain.items():
                assert sharded[key] == pytest.approx(values, rel=1e-4), key
        first, second = (rank[f"{name}, ddp"]["memory/rnn.l1/3"] for rank in ranks)
        assert first != pytest.approx(second, rel=1e-2)
