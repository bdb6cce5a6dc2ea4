"""The main job on real data: a network that does not train, what is wrong with it, and the same network cured."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pytorch_lightning import LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import TQDMProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from gradguard.detect import Finding, Severity
from gradguard.lightning import GradGuard
from gradguard.report import write_page

SIZES = (64, *[64] * 11, 10)  # twelve layers
BATCH = 64
NAMES = ("twelve layers of sigmoids", "the same with ReLU")


class Digits(NamedTuple):
    """scikit-learn's 1797 handwritten digits, 8 x 8 pixels, in [0, 1]."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


class Outcome(NamedTuple):
    """What one training gave."""

    accuracy: float
    findings: list[Finding]
    folder: Path


class Classifier(LightningModule):
    """A network that sorts digits, trained with plain SGD. Nothing in it knows of GradGuard."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__()
        self.network = network

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Give the loss."""
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain SGD with momentum."""
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


def load() -> Digits:
    """Give the data, every fifth digit for testing."""
    try:
        import tensorboard  # noqa: F401  # asked here, before anything is trained
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise SystemExit(f"gradguard demo needs {error.name}: pip install 'gradguard[demo]'") from error
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    test = torch.arange(len(x)) % 5 == 0
    return Digits(x[~test], y[~test], x[test], y[test])


def sick_network() -> nn.Sequential:
    """Twelve Linear layers with a sigmoid after each but the last."""
    layers: dict[str, nn.Module] = {}
    for i, (before, after) in enumerate(pairwise(SIZES), start=1):
        layers |= {f"layer{i}": nn.Linear(before, after), f"activation{i}": nn.Sigmoid()}
    layers.popitem()
    return nn.Sequential(OrderedDict(layers))


def cured_network() -> nn.Sequential:
    """The same network after two pieces of advice on its gradient: ReLU for sigmoid, Kaiming's initialisation."""
    network = sick_network()
    for name, layer in list(network.named_children()):
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        else:
            network.set_submodule(name, nn.ReLU())
    return network


def train(network: nn.Sequential, data: Digits, name: str, epochs: int, logs: Path) -> Outcome:
    """Train with one callback more than without GradGuard."""
    from pytorch_lightning.loggers import TensorBoardLogger

    module, guard = Classifier(network), GradGuard(prog_bar=True)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[guard, TQDMProgressBar(refresh_rate=5)],
        logger=TensorBoardLogger(logs, name=name),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(TensorDataset(data.train_x, data.train_y), BATCH, shuffle=True))
    with torch.no_grad():
        accuracy = (network(data.test_x).argmax(1) == data.test_y).float().mean().item()
    assert guard.guard is not None
    return Outcome(accuracy, guard.guard.diagnose(), Path(str(trainer.log_dir)))


def demo(*, epochs: int = 20, seed: int = 0, logs: str | Path = "gradguard_demo") -> int:
    """Run it, print what was found; 0 where the sick network was found out and the cured one is healthy."""
    data, outcomes = load(), {}
    with _quiet():
        for name, make in (("sick", sick_network), ("cured", cured_network)):
            seed_everything(seed, verbose=False)
            print(f"Training the {name} network ...", flush=True)
            outcomes[name] = outcome = train(make(), data, name, epochs, Path(logs))
            print(f"test accuracy {outcome.accuracy:.1%}", end="\n\n")
            if name == "sick":
                print("Cure, the first advice on vanishing_depth: ReLU for sigmoid, and Kaiming's initialisation.\n")
    sick, cured = outcomes["sick"], outcomes["cured"]
    found = any(f.severity is Severity.CRITICAL for f in sick.findings)
    healthy = all(f.severity is Severity.INFO for f in cured.findings)
    print(f"Twelve layers on {len(data.train_x)} handwritten digits, tested on {len(data.test_x)} others:")
    for what, outcome, otherwise in (("sigmoid", sick, "nothing found"), ("ReLU", cured, "healthy")):
        symptoms = ", ".join(f.symptom.value for f in outcome.findings)
        print(f"  with {what:7} {outcome.accuracy:6.1%}   {symptoms or otherwise}")
    page = write_page([outcome.folder / "gradguard" for outcome in (sick, cured)], Path(logs) / "report.html", NAMES)
    print(f"\nCurves, in TensorBoard:    tensorboard --logdir {logs}")
    print(f'Run record, in Python:     gradguard.record.read("{sick.folder / "gradguard"}").history')
    print(f"Both runs, as one page:    {page.resolve()}")
    return 0 if found and healthy and cured.accuracy > sick.accuracy else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Lightning's hints about accelerators and workers away from what matters here."""
    talkers: list[Any] = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning.pytorch")]
    levels = [talker.level for talker in talkers]
    for talker in talkers:
        talker.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers")
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for talker, level in zip(talkers, levels, strict=True):
            talker.setLevel(level)
