"""What the two processes of a distributed fit run. Each rank writes what it saw; the tests compare.

As a script, ``python -m tests.lightning.workers ddp FOLDER``: Lightning starts the second process itself.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from socket import socket
from typing import Any

import torch
import torch.multiprocessing as mp
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module
from torch.utils.data import DistributedSampler

from gradguard.clip import AGC, AdaGC, Ema, PerModule, ZClip
from gradguard.lightning import GradGuard
from gradguard.record import event_to_plain
from gradguard.recover import Skip
from tests.lightning.loops import BATCH, Plain, Stateful, loader, trainer

EVERY = 3
OFTEN = {"every_n_steps": EVERY, "prog_bar": True, "histograms": True, "detail": "parameter"}
CLIP = PerModule({"net.0": AdaGC(warmup=3), "net.2": AGC(0.1, exclude=()), "*": ZClip(0.5, baseline=Ema(warmup=3))})
VARIANTS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {  # batches a rank, of the Trainer, of the callback
    "7 batches": (7, {}, {}),
    "5 batches, accumulated": (5, {"accumulate_grad_batches": 2}, OFTEN),
    "clipped": (7, {"gradient_clip_val": 0.5, "max_epochs": 1}, OFTEN),
    "clips itself": (7, {}, {**OFTEN, "clip": CLIP, "recover": Skip()}),
}

OWN = "activation/"  # what a process sees of its own batch alone


class Joined(Plain):
    """Two ranks see together what one process sees: batch by batch, every other row is one rank's."""

    def __init__(self, batches: int = 7, **options: Any) -> None:
        super().__init__(**{"optimizer": torch.optim.AdamW, "lr": 1e-2, **options})
        self.batches = batches

    def train_dataloader(self) -> Stateful:
        rows, world = loader(2 * self.batches).dataset, self.trainer.world_size
        mine = DistributedSampler(rows, world, self.trainer.global_rank, shuffle=False)
        return Stateful(rows, batch_size=2 * BATCH // world, sampler=mine)


class Sharded(Joined):
    """FSDP2: each layer is sharded over the two ranks."""

    def configure_model(self) -> None:
        for layer in self.net:
            if isinstance(layer, nn.Linear) and not hasattr(layer.weight, "full_tensor"):
                fully_shard(layer, mesh=self.device_mesh["data_parallel"])


class Parallel(Plain):
    """Tensor parallel: the first layer by columns; with ``loss_parallel``, the last one and the loss, too."""

    def __init__(self, *, of_loss: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.of_loss = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)), of_loss

    def configure_model(self) -> None:
        first = ColwiseParallel(output_layouts=Replicate() if self.of_loss else Shard(-1))
        last = ColwiseParallel(output_layouts=Shard(-1), use_local_output=False) if self.of_loss else RowwiseParallel()
        parallelize_module(self.net, self.device_mesh["tensor_parallel"], {"0": first, "2": last})

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(self.net(batch[0]), batch[1].flatten().long().abs() % 4)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        with loss_parallel() if self.of_loss else nullcontext():
            return self.loss(batch)

    def backward(self, loss: Tensor) -> None:
        with loss_parallel() if self.of_loss else nullcontext():
            loss.backward()


class Report(Callback):
    """Writes what this rank has seen, at the end and at an exception. Comes behind the callbacks of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer, None, exception=f"{type(exception).__name__}: {exception}")

    def _write(self, trainer: Trainer, module: LightningModule | None, **more: Any) -> None:
        seen = {**more, "logged": {k: v.clone() for k, v in trainer.callback_metrics.items()}}
        for callback in trainer.callbacks:
            if isinstance(callback, GradGuard) and callback.guard is not None:
                guard = callback.guard
                history = {key: list(points) for key, points in guard.history.items()}
                seen["history"] = {key: points for key, points in history.items() if not key.startswith(OWN)}
                seen["events"] = [event_to_plain(event) for event in guard.events]
                seen |= {"steps": guard.steps, "closed": guard.closed, "found": [str(f) for f in guard.diagnose()]}
        if module is not None:
            seen["weights"] = {name: whole(value) for name, value in module.state_dict().items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.save(seen, self.folder / f"{trainer.global_rank}.pt")


def whole(value: Any) -> Tensor:
    return (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().clone()


def fsdp2() -> ModelParallelStrategy:
    return ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)


def module_of(strategy: Any) -> type[Joined]:
    return Sharded if isinstance(strategy, ModelParallelStrategy) else Joined


def fit(folder: Path, name: str, strategy: Any, *, watched: bool = True) -> None:
    """One fit of a variant, by two processes; ``strategy`` None: by one, on the joined batches."""
    batches, options, settings = VARIANTS[name]
    world = 1 if strategy is None else 2
    folder = Path(folder) / (name if watched else f"{name}, bare")
    callbacks = [GradGuard(**{"every_n_steps": EVERY, "summary": False, **settings})] if watched else []
    logs = [TensorBoardLogger(folder, name="tb"), CSVLogger(folder, name="csv")] if watched else False
    fitted = trainer(
        [*callbacks, Report(folder)],
        **{"devices": world, "log_every_n_steps": 4, "logger": logs, "default_root_dir": folder, **options},
        **({"strategy": strategy} if strategy is not None else {}),
    )
    fitted.fit(module_of(strategy)(batches))


def all_variants(folder: Path, make: Callable[[], Any], names: Iterable[str] = VARIANTS) -> None:
    for name in names:
        fit(folder, name, make())
    fit(folder, "7 batches", make(), watched=False)


def started(run: Callable[..., None], *args: Any) -> None:
    """Run something in two forked processes, as ``torchrun`` starts them; a rank that fails does not end the other."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.start_processes(_as_rank, args=(port, run, *args), nprocs=2, join=False, start_method="fork")
    try:
        for process in context.processes:
            process.join()
        context.join()
    finally:
        for process in context.processes:  # a test that was timed out
            process.kill()


def _as_rank(rank: int, port: int, run: Callable[..., None], *args: Any) -> None:
    there = {"LOCAL_RANK": rank, "NODE_RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in there.items()})
    run(*args)


def main() -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    strategy, folder = sys.argv[1:]
    all_variants(Path(folder), {"ddp": lambda: "ddp", "fsdp2": fsdp2}[strategy])


if __name__ == "__main__":
    main()
