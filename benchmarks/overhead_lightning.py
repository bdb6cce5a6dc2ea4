"""What the callback costs in a Trainer, beside a Trainer with gradient_clip_val=1.0 and one with Lightning's recipe."""

from __future__ import annotations

import copy
import logging
import statistics
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from time import perf_counter
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import grad_norm
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.timing import interval, microseconds, ratio, rounds, table
from gradguard.lightning import GradGuard

EVERY = 50  # steps between two looks, and between two rows of the loggers


class Wrapped(LightningModule):
    """Any model, trained to give zeros."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self.model(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-4)


class Recipe(Callback):
    """What Lightning's documentation suggests: grad_norm in the hook, and all of it through self.log, on due steps."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if (trainer.global_step + 1) % trainer.log_every_n_steps == 0:
            pl_module.log_dict(grad_norm(pl_module, 2))


class Clock(Callback):
    """Seconds of each step, from the end of one batch to the end of the next."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(perf_counter())

    def steps(self) -> list[float]:
        return [after - before for before, after in pairwise(self.ends)]


CONTENDERS: Mapping[str, Callable[[], tuple[list[Callback], dict[str, Any]]]] = {
    "bare": lambda: ([], {}),
    "gradient_clip_val=1.0": lambda: ([], {"gradient_clip_val": 1.0}),
    "gradient_clip_val=1.0 (A/A)": lambda: ([], {"gradient_clip_val": 1.0}),
    "GradGuard()": lambda: ([GradGuard(summary=False)], {}),
    "GradGuard(), gradient_clip_val=1.0": lambda: ([GradGuard(summary=False)], {"gradient_clip_val": 1.0}),
    "grad_norm through self.log": lambda: ([Recipe()], {}),
}


def inside_lightning(title: str, make: Callable[[], tuple[nn.Module, Tensor]], n: int, steps: int = 101) -> None:
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("gradguard").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    model, x = make()
    batches = DataLoader([x] * steps, batch_size=None)

    def turn(contender: Callable[[], tuple[list[Callback], dict[str, Any]]]) -> float:
        callbacks, options = contender()
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(
                accelerator="cpu",
                max_epochs=1,
                logger=CSVLogger(folder),
                callbacks=[*callbacks, clock],
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                **options,
            )
            trainer.fit(Wrapped(copy.deepcopy(model)), batches)
        dear[contender].append(statistics.mean(clock.steps()[EVERY - 2 :: EVERY]))
        return statistics.median(clock.steps())

    dear: dict[Any, list[float]] = defaultdict(list)
    whole = rounds({name: lambda c=contender: turn(c) for name, contender in CONTENDERS.items()}, n)
    base = whole["gradient_clip_val=1.0"]
    print(f"\n### {title} inside a Trainer with CSVLogger, {n} rounds of {steps - 1} steps\n")
    header = ["", "median step, us (quartiles)", "/ Trainer with clip [95 %]", f"every {EVERY}th step, us (quartiles)"]
    rows = [
        [name, microseconds(whole[name]), interval(ratio(whole[name], base)), microseconds(dear[contender][1:])]
        for name, contender in CONTENDERS.items()
    ]
    print(table(header, rows))
