"""What the processes of the synchronised batch norm's test run, and what one process runs to be held against them."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence

from gradguard import nn as gnn
from gradguard.nn.kernels import eager

LENGTHS = ((3, 6, 2), (1, 4))  # of each rank's sequences: one rank has fewer, and ends sooner


def sequences() -> list[list[Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [[torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in rank] for rank in LENGTHS]


def model(*, sync: bool) -> gnn.BatchNormLSTM:
    torch.manual_seed(0)
    options = {"num_layers": 2, "bidirectional": True, "gain": 0.8, "dtype": torch.float64}
    return gnn.BatchNormLSTM(3, 4, max_steps=5, sync=sync, **options)


def train(module: nn.Module, batch: list[Tensor], scale: float) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        output, (h, c) = module(pack_sequence(batch, enforce_sorted=False))
        (scale * (output.data.square().sum() + h.sin().sum() + c.square().sum())).backward()
        optimizer.step()


def run(rank: int, world: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    eager.ENTRIES = 100  # a step or two in a chunk, and not as many in each process
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    module = model(sync=True)
    # Its buffers are synchronised as they are; the mean of the ranks' gradients is to be their sum.
    train(nn.parallel.DistributedDataParallel(module, broadcast_buffers=False), sequences()[rank], float(world))
    torch.save(module.state_dict(), Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
