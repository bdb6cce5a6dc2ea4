"""What the process of the test of shards runs."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from gradguard import nn as gnn
from gradguard.nn import ind_rnn


def run(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    module = gnn.IndRNN(3, 8, 2, length=20)
    fully_shard(module)
    seen: list[torch.Tensor] = []
    stored: list[torch.Tensor] = []
    plain = ind_rnn.bounded

    def noted(*args: object) -> torch.Tensor:
        seen.append(plain(*args))
        return seen[-1]

    ind_rnn.bounded = noted
    optimizer = torch.optim.Adam(module.parameters(), lr=0.5)
    for _ in range(5):
        optimizer.zero_grad()
        module(torch.randn(20, 4, 3))[0].sum().neg().backward()
        optimizer.step()
        stored += [p.full_tensor().abs().max() for n, p in module.named_parameters() if "weight_hh" in n]
    saved = [v.full_tensor().abs().max() for name, v in module.state_dict().items() if "weight_hh" in name]
    found = {"most computed with": seen, "most stored": stored, "most saved": saved}
    most = {name: max(float(t.detach().abs().max()) for t in each) for name, each in found.items()}
    torch.save(most, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
