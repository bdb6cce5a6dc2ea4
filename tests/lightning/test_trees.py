"""One class for both copies of Lightning, and the entry points through which a Trainer of either finds it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard import autoload
from gradguard.lightning import GradGuard, GradientMonitor
from tests.lightning.loops import loader

TREES = ("pytorch_lightning", "lightning.pytorch")
ROOT = Path(__file__).parents[2]
FIT = """
import importlib, logging, os, sys, warnings
warnings.simplefilter("ignore")
for name in ("pytorch_lightning", "lightning.pytorch"):
    logging.getLogger(name).setLevel(logging.ERROR)
import torch
from torch.utils.data import DataLoader, TensorDataset

def fit(tree, *callbacks):
    tree = importlib.import_module(tree)

    class Module(tree.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(6, 1)

        def training_step(self, batch, batch_idx):
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "max_epochs": 1}
    trainer = tree.Trainer(accelerator="cpu", enable_model_summary=False, callbacks=list(callbacks), **quiet)
    trainer.fit(Module(), DataLoader(TensorDataset(torch.ones(12, 6)), batch_size=4))
    return trainer
"""
AUTO = """
from gradguard import Guard
from gradguard.lightning import GradGuard, GradientMonitor
measured, measure = [], Guard.measure
Guard.measure = lambda self, *args: (measured.append(1), measure(self, *args))[1]

def told(trainer):
    ours = [callback for callback in trainer.callbacks if isinstance(callback, GradGuard)]
    print([(one.is_automatic, one.guard and one.guard.steps["optimizer"]) for one in ours], len(measured))
    measured.clear()

for tree in sys.argv[1:]:
    for value in ("", "1"):
        os.environ["GRADGUARD_AUTO"] = value
        told(fit(tree))
        told(fit(tree, GradGuard(every_n_steps=7, norm_type=1.0, summary=False)))
        told(fit(tree, GradientMonitor(every_n_steps=7)))
"""


def fresh(code: str, *args: str) -> list[str]:
    """Run it in a process of its own, and give the lines that it prints."""
    env = {key: value for key, value in os.environ.items() if key != "GRADGUARD_AUTO"}
    command = [sys.executable, "-c", code, *args]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_callback_is_one_of_both_trees() -> None:
    for name in TREES:
        tree = pytest.importorskip(name)
        for callback in (GradGuard(), GradientMonitor()):
            assert isinstance(callback, tree.Callback)
            assert isinstance(callback, importlib.import_module(f"{name}.callbacks").Callback)


def module_of(tree: ModuleType) -> Any:
    class Module(tree.LightningModule):  # type: ignore[name-defined,misc]  # of either tree
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 1))

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return (self.net(batch[0]) - batch[1]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    return Module()


def test_both_trees_measure_the_same(tmp_path: Path) -> None:
    found = []
    for name in TREES:
        tree, callback = pytest.importorskip(name), GradGuard(every_n_steps=3, summary=False)
        trainer = tree.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=2,
            log_every_n_steps=5,
            callbacks=[callback, GradientMonitor(every_n_steps=3)],
            logger=importlib.import_module(f"{name}.loggers").CSVLogger(tmp_path / name),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module_of(tree), loader(9))
        (metrics,) = (tmp_path / name).rglob("metrics.csv")
        history = {key: points.last.tolist() for key, points in callback.guard.history.items()}
        found.append((metrics.read_text(), history, dict(trainer.callback_metrics)))
    assert "gradguard/grad_norm/net.0" in found[0][0]
    assert len(found[0][1]["grad_norm/total"]) == 18
    assert str(found[0]) == str(found[1])  # NaN is no obstacle then


@pytest.mark.slow
def test_where_only_pytorch_lightning_is_installed() -> None:
    blocked = 'import sys; sys.modules["lightning"] = None\n'
    code = FIT + (
        "from gradguard.lightning import GradGuard\n"
        "fit('pytorch_lightning', guard := GradGuard(every_n_steps=2, summary=False))\n"
        "print(guard.guard.steps, [c.__module__ for c in type(guard).__mro__ if c.__name__ == 'Callback'])\n"
    )
    (line,) = fresh(blocked + code)
    assert line == "{'optimizer': 3} ['pytorch_lightning.callbacks.callback']"


@pytest.mark.parametrize("group", ["pytorch_lightning.callbacks_factory", "lightning.pytorch.callbacks_factory"])
def test_entry_points(group: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (point,) = entry_points(group=group, name="gradguard")
    assert point.load() is autoload.callbacks
    for value in (None, "", "0", "yes"):
        monkeypatch.delenv("GRADGUARD_AUTO", raising=False)
        if value is not None:
            monkeypatch.setenv("GRADGUARD_AUTO", value)
        assert autoload.callbacks() == []
    monkeypatch.setenv("GRADGUARD_AUTO", "1")
    (callback,) = autoload.callbacks()
    assert isinstance(callback, GradGuard)


def test_unasked_the_factory_imports_nothing_heavy() -> None:
    code = (
        "import sys; before = set(sys.modules); from gradguard.autoload import callbacks; print(callbacks())\n"
        "print([name for name in ('pytorch_lightning', 'lightning', 'torchmetrics') if name in sys.modules])\n"
        "print([n for n in set(sys.modules) - before if n.startswith(('gradguard.lightning', 'gradguard.metrics'))])\n"
    )
    assert fresh(code) == ["[]", "[]", "[]"]


@pytest.mark.slow
def test_in_every_trainer_on_request() -> None:
    pytest.importorskip("lightning")
    lines = [line for line in fresh(FIT + AUTO, *TREES) if line.startswith("[")]
    unasked = ["[] 0", "[(False, 3)] 3", "[] 3"]
    asked = ["[(True, 3)] 3", "[(False, 3), (True, None)] 3", "[(True, 3)] 3"]  # yields to its own kind only
    assert lines == 2 * [*unasked, *asked]
