"""What several callbacks of one Trainer want together, and what none of them can have."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from gradguard.clip import NormClip
from gradguard.detect import NonFinite, VanishingDepth
from gradguard.lightning import GradGuard, GradientClipping, GradientMonitor
from gradguard.lightning.settings import Settings, joined
from tests.lightning.loops import Plain, loader, trainer


def together(*callbacks: Any) -> Settings:
    """Alike in any order."""
    orders = [
        joined([(type(one).__name__, one.settings()) for one in some]) for some in itertools.permutations(callbacks)
    ]
    assert all(order == orders[0] for order in orders)
    return orders[0]


def test_each_gets_what_it_asked_for(tmp_path: Path) -> None:
    detectors = [NonFinite(), VanishingDepth()]
    guard = GradGuard(detectors=detectors, detail="total", run_dir=str(tmp_path), strict=True)
    settings = together(guard, GradientMonitor(detail="parameter"), GradientMonitor(histograms=True, prog_bar=True))
    assert settings == Settings(
        every_n_steps=50,
        norm_type=2.0,
        max_points=1024,
        detectors=tuple(detectors),
        detail="parameter",
        histograms=True,
        prog_bar=True,
        summary=True,
        strict=True,
        record=True,
        run_dir=tmp_path,
        activations=True,
    )


def test_a_monitor_alone_only_logs() -> None:
    settings = together(GradientMonitor())
    assert settings.detail == "module"
    assert not settings.detectors
    flags = ("summary", "record", "strict", "histograms", "prog_bar")
    assert not any(getattr(settings, flag) for flag in flags)


def test_layers_are_looked_at_where_one_callback_asks_for_it(tmp_path: Path) -> None:
    quiet, clipping = GradGuard(activations=False), GradientClipping(NormClip(1.0))
    assert not together(quiet, clipping).activations
    assert together(quiet, clipping, GradientMonitor()).activations
    with pytest.raises(TypeError, match="activations needs to be True or False, got 1"):
        GradGuard(activations=1)
    for callback in (quiet, GradientMonitor(detail="total")):
        trainer([callback], default_root_dir=tmp_path, max_epochs=1).fit(Plain(), loader(3))
    assert not any(name.startswith("activation/") for name in quiet.guard.history)
    assert callback.guard.history["activation/net.0/rms"].steps.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("first", "second"),
    [({"every_n_steps": 3}, {}), ({"norm_type": 1.0}, {"norm_type": math.inf}), ({"max_points": 7}, {})],
)
def test_what_one_guard_cannot_have_twice_is_refused(first: dict[str, Any], second: dict[str, Any]) -> None:
    name = next(iter(first))
    message = rf"share one guard: GradGuard has {name}=\S+, GradientMonitor has {name}=\S+. Give them the same"
    with pytest.raises(ValueError, match=message):
        trainer([GradGuard(**first), GradientMonitor(**second)]).fit(Plain(), loader(), loader())


def test_two_folders_are_refused() -> None:
    pair = [("GradGuard", GradGuard(run_dir=folder).settings()) for folder in ("a", "b")]
    with pytest.raises(ValueError, match=r"one run record: GradGuard has run_dir=a, GradGuard has b\. Give one"):
        joined(pair)


@pytest.mark.parametrize(
    ("mistake", "kind", "message"),
    [
        ({"every_n_steps": 0}, ValueError, "every_n_steps to be an integer >= 1, got 0"),
        ({"every_n_steps": 2.5}, (TypeError, ValueError), "every_n_steps"),
        ({"norm_type": 0}, ValueError, "norm_type > 0 or inf, got 0"),
        ({"norm_type": "two"}, (TypeError, ValueError), "norm_type"),
        ({"max_points": 1}, ValueError, "max_points to be an integer >= 2, got 1"),
        ({"detail": "layer"}, ValueError, "detail needs to be one of total, module, parameter, got 'layer'"),
        ({"prog_bar": "yes"}, TypeError, "prog_bar needs to be True or False, got 'yes'"),
        ({"detectors": [3]}, TypeError, "detector"),
    ],
)
def test_a_mistake_is_said_where_it_was_typed(mistake: dict[str, Any], kind: Any, message: str) -> None:
    for callback in (GradGuard, GradientMonitor) if "detectors" not in mistake else (GradGuard,):
        with pytest.raises(kind, match=message):
            callback(**mistake)


def test_inf_may_be_spelled_as_yaml_and_json_spell_it() -> None:
    assert GradGuard(norm_type="inf").settings().norm_type == math.inf
    assert GradientMonitor(norm_type="inf").settings().norm_type == math.inf
