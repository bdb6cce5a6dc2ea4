"""What the two processes of the distributed tests run, and what one process runs to be held against it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tests.contracts.recurrent import MODULES

STEPS = 4


class Tagger(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.recurrent = MODULES[kind](3, 5, num_layers=2, bidirectional=True, batch_first=True, dtype=torch.float64)
        self.head = nn.Linear(10, 1, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.recurrent(x)[0])


def model(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return Tagger(kind)


def batches() -> Tensor:
    return torch.randn(STEPS, 4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def train(module: nn.Module, share: slice) -> list[float]:
    """Train on each batch's share; the losses."""
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for x in batches():
        optimizer.zero_grad()
        loss = (module(x[share]) - x[share].sum(2, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def run(rank: int, world: int, folder: str, how: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    found = {}
    for kind in MODULES:
        module = model(kind)
        if how == "ddp":
            module = nn.parallel.DistributedDataParallel(module)
        else:
            from torch.distributed.fsdp import fully_shard

            fully_shard(module.recurrent)
            fully_shard(module)
        found[kind] = train(module, slice(rank, None, world))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
