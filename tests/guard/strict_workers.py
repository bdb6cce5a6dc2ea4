"""What the two processes of the strict test run: each writes at which step it was stopped, and by what."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
import torch.distributed as dist

from gradguard import CriticalFindingError, Guard
from tests.guard.loops import batches, loss_of, mlp


def of_one_rank(rank: int, world: int, folder: str) -> None:
    """Not joined by DDP: only rank 1 sees NaN, as it does what it alone has seen of layers and sequences."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=world)
    found = []
    for bad_at in (5, 11):  # noticed at a flush; noticed as the guard is closed
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        told: list[str] = []
        run_dir = Path(folder) / f"run{bad_at}"
        guard = Guard(
            model, optimizer, every_n_steps=4, strict=True, run_dir=run_dir, notify=lambda f, told=told: told.append(f)
        )
        error = None
        try:
            with guard:
                for step, batch in enumerate(batches(11), start=1):
                    optimizer.zero_grad()
                    (loss_of(model, batch) * (torch.nan if step >= bad_at and rank == 1 else 1.0)).backward()
                    optimizer.step()
                    if step == 5 and rank == 1:
                        guard.diagnose()  # asked by one rank alone: takes no other, and stops it no sooner
        except CriticalFindingError as caught:
            error = caught
        finding = None if error is None or error.finding is None else error.finding.symptom.value
        words = str(error)
        found.append((error is not None, guard.steps["optimizer"], finding, words, guard.closed, len(told)))
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
