"""Both LightningCLIs take the callbacks from YAML and from the command line."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard.detect import Finding, NonFinite, VanishingDepth
from gradguard.lightning import GradGuard, GradientClipping, GradientMonitor
from tests.lightning.loops import loader

pytest.importorskip("jsonargparse")
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*LightningCLI's args parameter is intended to run from within Python",
    r"ignore:\s+(By default|``|skip_none):DeprecationWarning",  # of what Lightning's CLI calls
)
CALLBACKS = """
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  log_every_n_steps: 5
  callbacks:
    - class_path: gradguard.lightning.GradGuard
      init_args:
        every_n_steps: 3
        norm_type: inf
        detail: parameter
        summary: false
        run_dir: null
        notify: tests.lightning.test_cli.hear
        detectors:
          - class_path: gradguard.detect.VanishingDepth
            init_args: {decades: 4.0}
          - class_path: gradguard.detect.NonFinite
    - class_path: gradguard.lightning.GradientMonitor
      init_args: {every_n_steps: 3, norm_type: .inf, histograms: true}
"""


def hear(finding: Finding) -> None:
    """What the command line can name."""


@pytest.fixture(params=["pytorch_lightning", "lightning.pytorch"])
def tree(request: pytest.FixtureRequest) -> ModuleType:
    return pytest.importorskip(request.param)


def cli(tree: ModuleType, args: list[str], *, run: bool = True) -> Any:
    class Module(tree.LightningModule):  # type: ignore[name-defined,misc]  # of either tree
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(6, 1)

        def training_step(self, batch: Any, batch_idx: int) -> Tensor:
            return (self.net(batch[0]) - batch[1]).square().mean()

        def train_dataloader(self) -> Any:
            return loader(11)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    make = importlib.import_module(f"{tree.__name__}.cli").LightningCLI
    options: dict[str, Any] = {"save_config_callback": None, "seed_everything_default": False}
    return make(Module, args=["fit", *args] if run else args, run=run, **options)


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(CALLBACKS)
    return str(file)


def ours(trainer: Any) -> list[Any]:
    return [callback for callback in trainer.callbacks if isinstance(callback, GradGuard | GradientMonitor)]


def test_callbacks_from_yaml(tree: ModuleType, config: str) -> None:
    guard, monitor = ours(cli(tree, ["--config", config]).trainer)
    settings = guard.settings()
    assert (settings.every_n_steps, settings.norm_type, settings.detail) == (3, float("inf"), "parameter")
    depth, finite = settings.detectors
    assert isinstance(depth, VanishingDepth)
    assert depth.decades == 4.0
    assert isinstance(finite, NonFinite)
    assert [one.__name__ for one in settings.notify] == ["hear"]
    assert monitor.settings().histograms
    assert guard.guard is monitor.guard
    assert guard.guard.steps == {"optimizer": 11}
    assert list(guard.guard.history["weight_norm/net.weight"].steps) == [1, 2, 3, 6, 9]


def test_callbacks_added_on_the_command_line(tree: ModuleType) -> None:
    args = []
    for name, options in {
        "GradGuard": {
            "every_n_steps": "3",
            "norm_type": "inf",
            "run_dir": "runs/1",
            "report": "true",
            "notify": "[tests.lightning.test_cli.hear, builtins.print]",
        },
        "GradientMonitor": {"every_n_steps": "3", "norm_type": "inf", "detail": "total"},
    }.items():
        args += [f"--trainer.callbacks+=gradguard.lightning.{name}"]
        args += [f"--trainer.callbacks.{key}={value}" for key, value in options.items()]
    guard, monitor = ours(cli(tree, args, run=False).trainer)
    for settings in (guard.settings(), monitor.settings()):
        assert (settings.every_n_steps, settings.norm_type) == (3, float("inf"))
    assert guard.settings().run_dir == Path("runs/1")
    assert guard.settings().report
    assert [one.__name__ for one in guard.settings().notify] == ["hear", "print"]
    assert (guard.settings().detail, monitor.settings().detail) == ("module", "total")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("every_n_steps=0", "every_n_steps to be an integer >= 1, got 0"),
        ("every_n_steps=often", "every_n_steps"),
        ("detail=layer", "'module', 'parameter', 'total'"),
        ("norm_type=-1", "norm_type > 0 or inf, got -1"),
        ("detectors=[torch.nn.Linear]", "AbstractDetector"),
        ("every=3", "every"),
    ],
)
def test_a_mistake_is_named(tree: ModuleType, argument: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["--trainer.callbacks+=gradguard.lightning.GradGuard", f"--trainer.callbacks.{argument}"]
    with pytest.raises((SystemExit, ValueError)) as caught:
        cli(tree, args, run=False)
    said = capsys.readouterr().err + str(caught.value)
    assert message in said, said


def test_help_lists_every_argument_with_its_docstring(tree: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli(tree, ["--trainer.callbacks.help=gradguard.lightning.GradGuard"], run=False)
    assert caught.value.code == 0
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    for argument, text in {
        "every_n_steps": "steps between two looks, >= 1.",
        "norm_type": "p of the gradient norms",
        "detectors": "what to look for",
        "detail": "what is logged of each sampled step",
        "histograms": "whether gradient histograms are logged",
        "prog_bar": "on the progress bar",
        "summary": "the run is told in a few lines",
        "strict": "a critical finding ends the fit",
        "record": "whether a run record is written",
        "run_dir": "another folder for the run record",
        "report": "whether the report, ``report.html``, is written",
        "max_points": "most points that the history keeps",
    }.items():
        assert re.search(rf"--\S*{argument}\S* .*?{re.escape(text)}", said), argument


def test_a_printed_config_gives_the_same_callbacks(
    tree: ModuleType, config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        cli(tree, ["--config", config, "--print_config"], run=False)
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    first, second = (ours(cli(tree, ["--config", str(file)], run=False).trainer) for file in (config, printed))
    for a, b in zip(first, second, strict=True):
        assert type(a) is type(b)
        assert [type(d) for d in a.settings().detectors] == [type(d) for d in b.settings().detectors]
        assert vars(a.settings()) | {"detectors": ()} == vars(b.settings()) | {"detectors": ()}
    assert second[0].settings().detectors[0].decades == 4.0


CLIPPING = """
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
  callbacks:
    - class_path: gradguard.lightning.GradientClipping
      init_args:
        recover:
          class_path: gradguard.recover.Skip
          init_args: {budget: 3}
        clip:
          class_path: gradguard.clip.PerModule
          init_args:
            clippers:
              "net.bias":
                class_path: gradguard.clip.NormClip
                init_args: {max_norm: 0.5, norm_type: inf}
              "*":
                class_path: gradguard.clip.ZClip
                init_args:
                  z_threshold: 2
                  max_norm: 0.25
                  baseline: {class_path: gradguard.clip.MedianMad, init_args: {window: 50}}
                  target: {class_path: gradguard.clip.ToMean}
"""


def test_clippers_and_their_parts_come_from_yaml(tree: ModuleType, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CLIPPING)
    run = cli(tree, ["--config", str(config)])
    callback = next(one for one in run.trainer.callbacks if isinstance(one, GradientClipping))
    clippers = (
        "PerModule(clippers={'net.bias': NormClip(max_norm=0.5, norm_type=inf), "
        "'*': ZClip(z_threshold=2.0, baseline=MedianMad(window=50), target=ToMean(), max_norm=0.25)})"
    )
    assert repr(callback.settings().clip) == clippers
    assert callback.settings().recover.budget == 3
    assert callback.guard.history["clip/coefficient/*"].low.min() < 1
    run = cli(tree, ["--config", str(config), "--trainer.callbacks.clip", "gradguard.clip.AutoClip"])
    assert repr(run.trainer.callbacks[0].settings().clip) == "AutoClip()"
