"""TensorBoard's own plugin says which of our series stand on which chart."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard import context
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.plugins.base_plugin import TBContext
from torch import Tensor, nn

from gradguard.clip import NormClip, PerModule
from gradguard.lightning import GradGuard, GradientMonitor
from tests.guard.recurrent import UNITS
from tests.lightning import readers
from tests.lightning.loops import Plain, Two, loader, trainer
from tests.lightning.test_through_time import Reading, sequences

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*smaller than the logging interval",
    "ignore:html5lib's sanitizer is deprecated",  # of TensorBoard itself
)
Charts = dict[str, dict[str, set[str]]]  # series by chart, by group


def shown(folder: Path) -> Charts:
    """Ask the plugin for the layout, and for the series of each chart of all runs."""
    from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
    from tensorboard.plugins.scalar.scalars_plugin import ScalarsPlugin

    multiplexer = EventMultiplexer()
    multiplexer.AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    plugins: dict[str, Any] = {}
    given = TBContext(
        data_provider=MultiplexerDataProvider(multiplexer, str(folder)),
        plugin_name_to_instance=plugins,
        logdir=str(folder),
    )
    plugins["scalars"] = ScalarsPlugin(given)
    plugin, ctx = CustomScalarsPlugin(given), context.RequestContext()
    layout = json.loads(plugin.layout_impl(ctx, "") or "{}")
    found: Charts = {}
    for group in layout.get("category", ()):
        found[group["title"]] = {}
        for chart in group["chart"]:
            series: set[str] = set()
            for pattern in chart["multiline"]["tag"]:
                for run in multiplexer.Runs():
                    answer = plugin.scalars_impl(ctx, run, pattern, "")
                    assert answer["regex_valid"]
                    series |= answer["tag_to_events"].keys()
            found[group["title"]][chart["title"]] = series
    return found


def ours(folder: str) -> set[str]:
    return {key for key in readers.tensorboard(folder).scalars if key.startswith("gradguard/")}


def test_every_series_stands_on_one_chart_and_no_chart_is_empty(tmp_path: Path) -> None:
    clip = PerModule({"net.out*": NormClip(0.1), "*": NormClip(0.5)})
    callback, board = (
        GradGuard(every_n_steps=5, clip=clip, through_time=True, figures=False),
        TensorBoardLogger(tmp_path),
    )
    module = Reading()
    module.net.out = nn.Sequential(nn.Linear(UNITS, 4), nn.Tanh(), nn.Linear(4, 1))
    trainer([callback], logger=board).fit(module, sequences())
    (titles,) = shown(tmp_path).values()
    counts = Counter(key for series in titles.values() for key in series)
    assert set(counts.values()) == {1}
    alone = re.compile(r"gradguard/(through_time/.+/(fit|growth|saturated_cells)|gates/.+/spread)")
    assert {key for key in ours(board.log_dir) if not alone.fullmatch(key)} == set(counts)
    assert {title for title, series in titles.items() if not series} <= {"Findings, 1 while they hold"}
    keys = (*(f"grad_norm/{name}" for name in ("total", "mean", "max", "clipped")), "clip/threshold/net.out_")
    assert titles["Gradient norm"] == {f"gradguard/{key}" for key in (*keys, "clip/threshold/_")}
    assert titles["Gradient norm by module"] == {f"gradguard/grad_norm/net.{at}" for at in ("rnn.l0", "out.0", "out.2")}
    assert titles["Growth at each step back"] == {"gradguard/through_time/net.rnn.l0/rate"}


def test_only_what_the_callbacks_log_has_a_chart(tmp_path: Path) -> None:
    board = TensorBoardLogger(tmp_path)
    trainer([GradientMonitor(detail="parameter", activations=False)], logger=board).fit(Plain(), loader())
    assert shown(tmp_path)["gradguard"] == {
        "Gradient norm": {f"gradguard/grad_norm/{name}" for name in ("total", "mean", "max")},
        "Size of updates": {"gradguard/update_ratio/mean"},
        "Steps lost": {"gradguard/non_finite_share", "gradguard/overflows"},
        **{
            title: {f"gradguard/{key}/net.{i}.{part}" for i in (0, 2, 4) for part in ("weight", "bias")}
            for title, key in {
                "Gradient norm by parameter": "grad_norm",
                "Size of updates by parameter": "update_ratio",
                "Weight norm by parameter": "weight_norm",
            }.items()
        },
    }


def test_modules_named_almost_like_our_series_stand_among_the_modules(tmp_path: Path) -> None:
    class Odd(Plain):
        def __init__(self) -> None:
            super().__init__()
            names = ("max_net", "mean", "total2", "rate")
            del self.net
            self.parts = [nn.Linear(6, 6) for _ in names]  # a plain list: each is known by its own name alone
            for name, part in zip(names, self.parts, strict=True):
                self.add_module(name, part)

        def loss(self, batch: Any) -> Tensor:
            return nn.Sequential(*self.parts)(batch[0]).square().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    trainer([GradGuard(summary=False)], logger=TensorBoardLogger(tmp_path)).fit(Odd(), loader())
    titles = shown(tmp_path)["gradguard"]
    assert titles["Gradient norm"] == {f"gradguard/grad_norm/{name}" for name in ("total", "mean", "max")}
    modules = {f"gradguard/grad_norm/{name}" for name in ("max_net", "module.mean", "total2", "rate")}
    assert titles["Gradient norm by module"] == modules
    assert len(titles["Size of updates by module"]) == 4
    assert titles["Size of updates"] == {"gradguard/update_ratio/mean"}


def test_each_optimizer_has_a_group_and_runs_share_theirs(tmp_path: Path) -> None:
    for name in ("first", "second"):
        board = TensorBoardLogger(tmp_path, name=name)
        trainer([GradGuard(detail="total", summary=False, activations=False)], logger=board).fit(Two(), loader())
    groups = shown(tmp_path)
    assert list(groups) == ["gradguard/generator", "gradguard/critic"]
    for name, titles in groups.items():
        assert titles["Gradient norm"] == {f"{name}/grad_norm/{key}" for key in ("total", "mean", "max")}
        assert list(titles) == ["Gradient norm", "Size of updates", "Steps lost", "Findings, 1 while they hold"]


def test_a_layout_of_the_users_own_is_left_alone(tmp_path: Path) -> None:
    class Own(Plain):
        def on_train_start(self) -> None:
            self.logger.experiment.add_custom_scalars({"mine": {"loss": ["Multiline", ["loss"]]}})

    trainer([GradGuard(summary=False)], logger=TensorBoardLogger(tmp_path)).fit(Own(), loader())
    assert list(shown(tmp_path)) == ["mine"]  # of a run's layouts, TensorBoard shows the last


def test_other_loggers_lay_out_nothing(tmp_path: Path) -> None:
    log = CSVLogger(tmp_path)
    trainer([GradGuard(summary=False)], logger=log).fit(Plain(), loader())
    assert {path.name for path in Path(log.log_dir).iterdir()} == {"gradguard", "metrics.csv"}
    assert readers.csv_log(log.log_dir).scalars.keys() >= {"gradguard/grad_norm/total"}
