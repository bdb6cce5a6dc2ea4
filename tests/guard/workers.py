"""What the two processes of the distributed tests run. Each writes what it saw; the tests compare."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from gradguard import Guard
from gradguard.functional import measure, norms
from tests.guard.loops import batches, loss_of, mlp

BATCHES = 8
OWN = "activation/"  # what a process sees of its own batch alone


def sharded_model() -> nn.Module:
    """Layers whose sizes do not divide by two, a recurrent one, and a weight large enough for the row path."""
    torch.manual_seed(0)
    return nn.ModuleDict({"first": nn.Linear(4, 37), "lstm": nn.LSTM(37, 65), "last": nn.Linear(65, 1)})


def forward(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    hidden, _ = model["lstm"](torch.tanh(model["first"](x)))
    return model["last"](hidden)


def run(guard: Guard, path: Path) -> None:
    findings = guard.diagnose()
    history = {key: (p.steps, p.last) for key, p in guard.history.items() if not key.startswith(OWN)}
    torch.save({"history": history, "findings": len(findings), "reads": guard.host_reads}, path)


def ddp(rank: int, world: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    torch.manual_seed(0)
    model = nn.parallel.DistributedDataParallel(mlp())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=3)
    for step, (x, y) in enumerate(batches(BATCHES)):
        optimizer.zero_grad()
        mine = (x[rank::world], y[rank::world])
        if step % 2:  # accumulation: the first micro-batch stays local until the second one is reduced
            with model.no_sync():
                (loss_of(model, (mine[0][:1], mine[1][:1])) / 3).backward()
            (loss_of(model, (mine[0][1:], mine[1][1:])) * 2 / 3).backward()
        else:
            loss_of(model, mine).backward()
        optimizer.step()
    run(guard, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


def fsdp2(rank: int, world: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    model = sharded_model()
    for layer in model.values():
        fully_shard(layer)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=3)
    for x, y in batches(BATCHES):
        optimizer.zero_grad()
        nn.functional.mse_loss(forward(model, x), y).backward()
        optimizer.step()
    run(guard, Path(folder) / f"{rank}.pt")
    x, y = batches(1)[0]
    optimizer.zero_grad()
    nn.functional.mse_loss(forward(model, x), y).backward()
    orders = {p: measure(list(model.parameters()), norm_type=p).norms for p in (1.0, 2.0, 3.0, 20.0, float("inf"))}
    exact = measure(list(model.parameters()), exact=True).norms
    torch.save({"orders": orders, "exact": exact}, Path(folder) / f"orders-{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()


def placements(rank: int, world: int, folder: str) -> None:
    """Norms of every kind of DTensor at once: sharded on either axis, replicated, unreduced, on two meshes."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    flat, square = init_device_mesh("cpu", (world,)), init_device_mesh("cpu", (world, 1))
    torch.manual_seed(0)
    whole = torch.randn(5, 7)
    halves = DTensor.from_local(whole / world, flat, [Partial()])
    tensors = [
        distribute_tensor(whole, flat, [Shard(0)]),
        distribute_tensor(whole, flat, [Shard(1)]),
        distribute_tensor(whole, flat, [Replicate()]),
        halves,
        distribute_tensor(whole, square, [Shard(0), Shard(1)]),
        distribute_tensor(whole, square, [Replicate(), Shard(0)]),
        whole,
        distribute_tensor(whole[:1], flat, [Shard(0)]),  # the second rank holds nothing
    ]
    found = {p: norms(tensors, p) for p in (2.0, float("inf"))}
    torch.save({"whole": whole, "found": found}, Path(folder) / f"{rank}.pt")
    dist.barrier()  # a rank that leaves while the other one still reads aborts it
    dist.destroy_process_group()
