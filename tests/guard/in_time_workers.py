"""What the two processes of the test of looks through time run, each on its own half of the batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from gradguard import Guard
from gradguard import nn as gnn
from tests.guard.recurrent import FEATURES, UNITS, Reader, batches, loss_of, made

KINDS: dict[str, Callable[[], nn.Module]] = {
    "torch": lambda: Reader(nn.LSTM(FEATURES, UNITS, num_layers=2)),
    "ours": lambda: Reader(gnn.LayerNormLSTM(FEATURES, UNITS, num_layers=2, weight_dropout=0.3)),
}


def seen(model: nn.Module, rank: int, world: int) -> dict[str, list[float]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    for step, (x, y) in enumerate(batches(3)):
        optimizer.zero_grad()
        torch.manual_seed(step)
        loss_of(model, (x[:, rank::world], y[rank::world])).backward()
        optimizer.step()
    found = {name: points.last.tolist() for name, points in guard.history.items() if name.startswith("memory/")}
    guard.close()
    return found


def run(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    found = {}
    for name, kind in KINDS.items():
        found[f"{name}, ddp"] = seen(nn.parallel.DistributedDataParallel(made(kind)), rank, world)
        model = made(kind)
        fully_shard(model.rnn)
        fully_shard(model)
        found[f"{name}, fsdp2"] = seen(model, rank, world)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()
