"""Initialise in real Trainers: once, before wrapping, the same on all ranks, never on resume, logged."""

from __future__ import annotations

import csv
import functools
import importlib
import logging
import os
from pathlib import Path
from typing import Any

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.strategies import DDPStrategy
from torch import Tensor, nn

from gradguard import init
from gradguard.lightning import GradGuard, Initialise
from tests.lightning.loops import Plain, loader, trainer
from tests.lightning.workers import started


class Recurrent(Plain):
    """An LSTM and a head; the network of the others is its head."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.lstm = nn.LSTM(6, 6, batch_first=True)
        self.example_input_array = torch.randn(8, 6, generator=torch.Generator().manual_seed(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(self.lstm(x[:, None])[0][:, 0])

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return (self(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer(self.parameters(), **self.options)


class Late(Recurrent):
    """Its LSTM is made in ``configure_model``."""

    def __init__(self) -> None:
        super().__init__()
        del self.lstm

    def configure_model(self) -> None:
        self.lstm = nn.LSTM(6, 6, batch_first=True)


class First(Callback):
    """Copies the weights as they are when the first batch comes, and the batch."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if not hasattr(self, "weights"):
            self.weights = {name: value.clone() for name, value in pl_module.state_dict().items()}
            self.wrapped = type(trainer.model).__name__


def opened(weights: dict[str, Tensor]) -> bool:
    return bool(((weights["lstm.bias_ih_l0"] + weights["lstm.bias_hh_l0"])[6:12] == 1).all())


EVERYTHING: list[Any] = [
    "orthogonal_",
    {"for_activations_": {"distribution": "uniform"}},
    functools.partial(init.chrono_, t_max=20),
    lambda module: init.forget_gate_(module.lstm, 1.0),
]


@pytest.mark.parametrize("kind", [Recurrent, Late])
def test_once_at_the_start_and_logged(kind: type[Recurrent], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, ours = First(), Initialise(EVERYTHING, seed=0)
    logger = CSVLogger(tmp_path)
    fit = trainer([ours, first, GradGuard()], logger=logger, log_every_n_steps=1)
    with caplog.at_level(logging.INFO, "gradguard"):
        fit.fit(kind(), loader())
    assert opened(first.weights)
    block = first.weights["lstm.weight_hh_l0"][:6]
    torch.testing.assert_close(block @ block.T, torch.eye(6))
    assert [change.note.split(":")[0] for change in ours.changes if change.note] == ["tanh", "tanh", "linear"]
    assert ours.changes[-1] == ("bias_l0[f]", "mean bias total", pytest.approx(ours.changes[-1].before), 1.0, "")
    assert "Initialised:\nname" in caplog.text
    logger.finalize("success")
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    key = "gradguard/init/lstm.weight_hh_l0.f/condition_number"
    assert [float(row[key]) for row in rows if row[key]] == [pytest.approx(1.0, abs=1e-4)]


def test_the_seed_decides_and_the_data_come_as_they_would() -> None:
    def run(callbacks: list[Any]) -> tuple[dict[str, Tensor], Tensor]:
        seed_everything(7)
        model, first = Recurrent(), First()
        trainer([*callbacks, first], max_epochs=1).fit(model, loader())
        return first.weights, torch.rand(3)

    names = ["orthogonal_", "uniform_gate_"]
    (one, after), (two, _), (other, _) = (run([Initialise(names, seed=s)]) for s in (1, 1, 2))
    (by_default, _), (again, _), (plain, untouched) = run([Initialise(names)]), run([Initialise(names)]), run([])
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["lstm.weight_hh_l0"], other["lstm.weight_hh_l0"])
    assert all(torch.equal(by_default[name], again[name]) for name in one)
    assert torch.equal(plain["net.0.weight"], one["net.0.weight"])
    assert torch.equal(after, untouched)


@pytest.mark.filterwarnings("ignore:Be aware that when using .ckpt_path., callbacks", "ignore:Checkpoint directory")
def test_never_on_resume_nor_in_a_second_fit(tmp_path: Path) -> None:
    ours, keep = Initialise(EVERYTHING, seed=0), ModelCheckpoint(tmp_path / "kept", save_last=True)
    fit, model = trainer([ours, keep], max_epochs=1, enable_checkpointing=True), Recurrent()
    fit.fit(model, loader())
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    called: list[Any] = []
    again, first = Initialise([*EVERYTHING, called.append], seed=0), First()
    logger = CSVLogger(tmp_path / "logs", version=0)
    resumed = trainer([again, first], max_epochs=2, logger=logger)
    resumed.fit(Recurrent(), loader(), ckpt_path=keep.last_model_path, weights_only=False)
    assert all(torch.equal(first.weights[name], value) for name, value in trained.items())
    assert again.changes == ()
    assert called == []
    assert not (Path(logger.log_dir) / "metrics.csv").exists()  # there was nothing to log
    fit.fit_loop.max_epochs = 2  # the same Trainer goes on
    late = First()
    fit.callbacks.append(late)
    fit.fit(model, loader())
    assert all(torch.equal(late.weights[name], value) for name, value in trained.items())


@pytest.mark.filterwarnings("ignore:.*bf16-true.*")
def test_several_callbacks_functions_without_a_generator_and_half_precision() -> None:
    model, first = Recurrent(), First()
    other = Initialise([lambda module: init.uniform_gate_(module), "lsuv_"], seed=4)
    fit = trainer([Initialise(["orthogonal_"]), other, first], precision="bf16-true", max_epochs=1)
    fit.fit(model, loader())
    assert first.weights["lstm.weight_hh_l0"].dtype == torch.bfloat16
    assert other.changes.numbers()["lstm.weight_ih_l0.g/output_std"] == pytest.approx(1.0, abs=0.06)
    assert "setup" not in vars(fit.strategy)
    drawn = nn.LSTM(6, 6)
    init.uniform_gate_(drawn, generator=torch.Generator().manual_seed(4))
    torch.testing.assert_close(
        first.weights["lstm.bias_ih_l0"][6:12].float(), drawn.bias_ih_l0.detach()[6:12], rtol=0.01, atol=0.01
    )


def test_a_fit_that_fails_before_does_not_initialise_in_another_stage() -> None:
    class Fails(Callback):
        def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
            if stage == "fit":
                raise RuntimeError("no data")

    model = Recurrent()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fit = trainer([Initialise(EVERYTHING), Fails()])
    with pytest.raises(RuntimeError, match="no data"):
        fit.fit(model, loader())
    fit.validate(model, loader(), verbose=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_other_stages_initialise_nothing() -> None:
    model = Recurrent()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for run in ("validate", "test"):
        getattr(trainer([Initialise(EVERYTHING)]), run)(model, loader(), verbose=False)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_either_tree() -> None:
    assert issubclass(Initialise, pytorch_lightning.Callback)
    assert issubclass(Initialise, lightning.pytorch.Callback)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, "Initialise needs an initialiser, got an empty list"),
        (["orthogonal"], ValueError, "Initialise knows no 'orthogonal', but chrono_, for_activations_, forget_gate_"),
        ([{"chrono_": {"tmax": 3}}], ValueError, "Initialise can't give chrono_ tmax: it has no such argument"),
        ([{"chrono_": 3}], TypeError, r"names with arguments \{'forget_gate_': \{'value': 1.0\}\}, or functions"),
        ([{"a": {}, "b": {}}], TypeError, "Initialise needs names from gradguard.init"),
        ([3], TypeError, "Initialise needs names from gradguard.init"),
        (["chrono_"], ValueError, r"Initialise needs t_max for chrono_: \{'chrono_': \{'t_max': ...\}\}"),
        ([{"orthogonal_": {"model": 3}}], ValueError, "Initialise can't give orthogonal_ model"),
        (5, TypeError, "Initialise needs a list of initialisers, got 5"),
        ("orthogonal_", TypeError, "Initialise needs a list of initialisers, got 'orthogonal_'. Write"),
        (init.orthogonal_, TypeError, "Initialise needs a list of initialisers"),
    ],
)
def test_bad_arguments(given: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Initialise(given)
    with pytest.raises(ValueError, match="Initialise needs seed to be an integer >= 0"):
        Initialise(["orthogonal_"], seed=-1)


def test_what_fails_leaves_all_weights_and_says_what_is_missing() -> None:
    model = Recurrent()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="chrono_ needs t_max >= 3"):
        trainer([Initialise(["orthogonal_", {"chrono_": {"t_max": 2}}])]).fit(model, loader())
    model.example_input_array = None
    for initialiser in ("lsuv_", functools.partial(init.lsuv_, std=2.0)):
        with pytest.raises(
            ValueError, match=r"lsuv_ runs the module on an example. Set self.example_input_array in Recurrent"
        ):
            trainer([Initialise(["orthogonal_", initialiser])]).fit(model, loader())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


class Ranked(Recurrent):
    """Each rank begins with other weights and has another example."""

    def setup(self, stage: str) -> None:
        with torch.no_grad():
            self.net[0].weight.add_(float(self.global_rank))
        self.example_input_array = self.example_input_array + self.global_rank


class Noting(DDPStrategy):
    """Copies the weights before they are wrapped, and made alike."""

    def setup(self, trainer: Trainer) -> None:
        self.noted = {name: value.clone() for name, value in trainer.lightning_module.state_dict().items()}
        super().setup(trainer)


def run_rank(folder: str) -> None:
    rank = int(os.environ["LOCAL_RANK"])
    seed_everything(rank)
    initialise, first, strategy = Initialise(["orthogonal_", "lsuv_"]), First(), Noting(process_group_backend="gloo")
    trainer([initialise, first], strategy=strategy, devices=2, max_steps=2).fit(Ranked(), loader())
    seen = strategy.noted, first.weights, first.wrapped, tuple(initialise.changes.numbers())
    torch.save(seen, Path(folder) / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore")  # of Lightning and torch.distributed, other ones in each version
def test_two_ranks_have_the_same_weights_before_the_strategy_wraps_them(tmp_path: Path) -> None:
    started(run_rank, str(tmp_path))
    (before_0, one, wrapped, names), (before_1, two, _, _) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert wrapped == "DistributedDataParallel"
    assert "lstm.weight_hh_l0.f/condition_number" in names
    for name in one:
        assert torch.equal(before_0[name], before_1[name])
        assert torch.equal(before_0[name], one[name])
        assert torch.equal(one[name], two[name])


CONFIG = """
seed_everything: 1
trainer:
  accelerator: cpu
  max_steps: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: gradguard.lightning.Initialise
      init_args:
        initialisers:
          - orthogonal_
          - forget_gate_: {value: 0.5}
        seed: 3
"""


@pytest.mark.filterwarnings(
    "ignore:.*LightningCLI's args parameter is intended to run from within Python",
    r"ignore:\s+(By default|``|skip_none):DeprecationWarning",  # of what Lightning's CLI calls
)
@pytest.mark.parametrize("tree", [pytorch_lightning, lightning.pytorch])
def test_from_a_config_file(tree: Any, tmp_path: Path) -> None:
    class Module(tree.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 6)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return self.lstm(batch[0])[0].square().mean()

        def train_dataloader(self) -> Any:
            return loader()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    (tmp_path / "config.yaml").write_text(CONFIG)
    make = importlib.import_module(f"{tree.__name__}.cli").LightningCLI
    cli = make(Module, run=False, save_config_callback=None, args=["--config", str(tmp_path / "config.yaml")])
    cli.trainer.fit(cli.model)
    ours = next(callback for callback in cli.trainer.callbacks if isinstance(callback, Initialise))
    assert ours.changes[-1].after == 0.5
    assert len(ours.changes) == 5
