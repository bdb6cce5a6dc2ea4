"""Modules, data and Trainers that the callbacks' tests share."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import pytorch_lightning
import torch
from pytorch_lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

BATCH = 4
for name in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(name).setLevel(logging.WARNING)
os.environ.pop("GRADGUARD_AUTO", None)
# With our callback or without it, batch_idx and the loggers' x are one behind from there on, and a checkpoint of an
# epoch's last batch is followed by one batch more.
counts_from_a_checkpoint = pytest.mark.xfail(
    pytorch_lightning.__version__.startswith("2.4."), reason="Lightning 2.4 loses a batch of its count", strict=True
)


def network(depth: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [module for _ in range(depth - 1) for module in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers, nn.Linear(6, 1))


def loader(batches: int = 12, seed: int = 1) -> DataLoader:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batches * BATCH, 6, generator=generator)
    return DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=BATCH)


class Plain(LightningModule):
    """Automatic optimisation of one network; ``loss`` is what a plain loop would compute."""

    def __init__(self, optimizer: type[torch.optim.Optimizer] = torch.optim.SGD, **options: Any) -> None:
        super().__init__()
        self.net, self.optimizer, self.options = network(), optimizer, {"lr": 0.05, **options}

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (self.net(batch[0]).float() - batch[1]).square().mean()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        return self.loss(batch)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch))

    test_step = validation_step

    def predict_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.net.parameters(), **self.options)


class Manual(Plain):
    """Manual optimisation."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.automatic_optimization = False

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.loss(batch))
        optimizer.step()


class Two(LightningModule):
    """Manual optimisation of two networks in turns, one of them frozen while the other is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.generator, self.critic = network(), network()

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        for i, optimizer in enumerate(self.optimizers()):
            self.toggle_optimizer(optimizer)
            loss = (self.critic(batch[0]) * (1 + self.generator(batch[0]))).mean() * (1 - 2 * i)
            optimizer.zero_grad()
            self.manual_backward(loss)
            optimizer.step()
            self.untoggle_optimizer(optimizer)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [
            torch.optim.Adam(self.generator.parameters(), lr=1e-2),
            torch.optim.SGD(self.critic.parameters(), lr=1e-2),
        ]


class Stateful(DataLoader):
    """Goes on at the batch at which a checkpoint was saved."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at = self.start = 0

    def __iter__(self) -> Iterator[Any]:
        start, self.start = self.start, 0
        for i, batch in enumerate(super().__iter__()):
            if i >= start:
                self.at = i + 1
                yield batch
        self.at = 0

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.start = state["at"] % len(self)  # 0 where the epoch was over


def trainer(callbacks: list[Any], **options: Any) -> Trainer:
    """A Trainer that writes nothing and shows nothing, but for what ``options`` say."""
    quiet = {
        "accelerator": "cpu",
        "devices": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 2,
        "log_every_n_steps": 5,
    }
    if options.get("barebones"):
        quiet = {"accelerator": "cpu", "devices": 1, "max_epochs": 2}
    return Trainer(**{**quiet, **options}, callbacks=callbacks)


def weights(module: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in module.state_dict().values()]
