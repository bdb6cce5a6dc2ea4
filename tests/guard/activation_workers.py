"""What the two processes of the test of looks at layers run, each on its own half of the batch."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from gradguard import Guard


def made() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.ReLU(), nn.Linear(5, 1))


def seen(model: nn.Module, rank: int, world: int) -> dict[str, list[float]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    generator = torch.Generator().manual_seed(1)
    with Guard(model, optimizer) as guard:
        for _ in range(3):
            x = torch.randn(10, 6, generator=generator)[rank::world]
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
    return {name: points.last.tolist() for name, points in guard.history.items() if name.startswith("activation/")}


def run(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    found = {"alone": seen(made(), rank, world)}
    found["ddp"] = seen(nn.parallel.DistributedDataParallel(made()), rank, world)
    model = made()
    fully_shard(model[0])
    fully_shard(model)
    found["fsdp2"] = seen(model, rank, world)
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()
