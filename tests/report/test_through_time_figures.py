"""The heat map shows the numbers of the history, on the axes that it is given; what all figures share."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from gradguard.errors import GradGuardError
from gradguard.probe import gates
from gradguard.record import Points
from gradguard.report import memory_of, plot_gates, plot_memory, plot_profile
from gradguard.report.heat_map import edges
from tests.report.samples import fading, history_of, line, mesh_of, png, profile_of


def test_the_heat_map_is_the_history() -> None:
    samples = {1: fading(100, 0.5, 3.0), 2: fading(100, 0.8), 4: fading(100, 0.99, 1e-5), 25: fading(100, 1.1)}
    history = history_of(samples)
    ax = plot_memory(history)
    values, across, up = mesh_of(ax)
    lags = [lag for lag in range(100) if f"memory/lstm.l0/{lag}" in history]
    assert lags[:6] == [0, 1, 2, 3, 4, 5]
    assert len(lags) < 35
    for column, sizes in enumerate(samples.values()):
        right = sizes[lags].numpy() / float(sizes[lags].max())
        np.testing.assert_allclose(values[:, column], np.maximum(right, 1e-30), rtol=1e-14)
    assert across.tolist() == [0.5, 1.5, 3.0, 14.5, 35.5]
    assert up.tolist()[:3] == [-0.5, 0.5, 1.5]
    assert len(up) == len(lags) + 1
    assert all(low < lag < high for lag, low, high in zip(lags, up[:-1], up[1:], strict=True))
    assert up[-1] >= 100
    assert ax.get_yscale() == "symlog"
    assert (ax.collections[0].norm.vmin, ax.collections[0].norm.vmax) == (1e-6, 1.0)
    assert ax.get_title() == "lstm.l0: gradient left, going back in time"
    assert line(ax, "1 % left") == ([1, 2, 4, 25], history["through_time/lstm.l0/horizon"].last.tolist())
    assert line(ax, "1 % left")[1][0] == pytest.approx(math.log(100) / math.log(2))
    assert line(ax, "end of the sequence") == ([1, 2, 4, 25], [100.0] * 4)
    assert line(ax, "1 % left")[1][2:] == [100.0, 100.0]


def test_the_table_is_that_of_the_figure() -> None:
    history = history_of({1: fading(30, 0.5), 7: fading(60, 0.9)})
    memory = memory_of(history, "lstm.l0")
    assert memory.layer == "lstm.l0"
    assert memory.steps.tolist() == [1, 7]
    assert memory.shares.dtype == torch.float64
    assert memory.shares.shape == (2, len(memory.lags))
    assert memory.lengths.tolist() == [30, 60]
    np.testing.assert_array_equal(mesh_of(plot_memory(history))[0], memory.shares.T.numpy())
    with torch.device("meta"):  # a default device is nobody's business here
        again = memory_of(history)
    assert again.lags.tolist() == memory.lags.tolist()
    np.testing.assert_array_equal(again.shares.numpy(), memory.shares.numpy())


def test_a_layer_whose_sequences_grew_is_blank_beyond_them() -> None:
    samples = {1: fading(10, 0.5), 2: fading(40, 0.5), 3: fading(20, 0.5)}
    memory = memory_of(history_of(samples))
    values, _, up = mesh_of(plot_memory(history_of(samples)))
    for column, length in enumerate([10, 40, 20]):
        there = memory.lags.numpy() < length
        assert np.isnan(values[~there, column]).all()
        np.testing.assert_allclose(values[there, column], 0.5 ** memory.lags.numpy()[there], rtol=1e-14)
    assert memory.lags.max() < 40 <= up[-1]


def test_a_step_without_gradient_is_blank_and_breaks_the_line() -> None:
    nothing, unknown = torch.zeros(20, dtype=torch.float64), torch.full((20,), torch.nan, dtype=torch.float64)
    ax = plot_memory(history_of({1: fading(20, 0.5), 2: nothing, 3: unknown, 4: fading(20, 0.5)}))
    values, _, _ = mesh_of(ax)
    assert np.isnan(values).all(0).tolist() == [False, True, True, False]
    assert np.isnan(line(ax, "1 % left")[1]).tolist() == [False, True, True, False]
    png(ax)


def test_zeros_are_dark_and_not_blank() -> None:
    values, _, _ = mesh_of(plot_memory(history_of({1: torch.tensor([1.0, 0.5, 0.0, 0.0], dtype=torch.float64)})))
    np.testing.assert_array_equal(values[:, 0], [1.0, 0.5, 1e-30, 1e-30])


def test_one_step_alone_is_a_column_with_a_tick() -> None:
    ax = plot_memory(history_of({3: fading(20, 0.5)}))
    values, across, _ = mesh_of(ax)
    assert values.shape[1] == 1
    assert across.tolist() == [2.5, 3.5]
    assert ax.get_xticks().tolist() == [3.0]
    assert line(ax, "1 % left")[0] == [3]
    assert ax.lines[0].get_marker() == "o"  # a line of one point would not be seen
    png(ax)


def test_one_lag_alone_is_a_row() -> None:
    ax = plot_memory({"memory/l0/0": Points(torch.tensor([1, 2]), *[torch.ones(2)] * 3)})
    assert mesh_of(ax)[2].tolist() == [-0.5, 0.5]
    assert list(ax.lines) == []  # neither horizon nor length is known
    assert ax.get_legend() is None


def test_edges_lie_between_their_centres() -> None:
    assert edges(torch.tensor([4])) == [3.5, 4.5]
    assert edges(torch.tensor([1, 2, 4, 10])) == [0.5, 1.5, 3.0, 7.0, 13.0]


@pytest.mark.parametrize("colorbar", [True, False])
def test_the_axes_passed_in_are_used(colorbar: bool) -> None:
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    history = history_of({1: fading(20, 0.5), 2: fading(20, 0.5)})
    assert plot_memory(history, ax=right, colorbar=colorbar) is right
    assert not left.has_data()
    assert len(figure.axes) == 2 + colorbar
    if colorbar:
        bar = figure.axes[-1]
        assert bar.get_ylabel() == "share of the step's largest gradient"
        assert [list(one.get_ydata()) for one in bar.lines if len(one.get_ydata()) == 2] == [[0.01, 0.01]]
    assert plot_gates(gates(nn.LSTM(2, 3), torch.randn(5, 1, 2))["l0"], ax=left) is left
    png(left)


def test_an_array_of_axes_is_said() -> None:
    with pytest.raises(TypeError, match=r"plot_profile needs ax to be one Axes of matplotlib, .* got ndarray"):
        plot_profile(profile_of(fading(20, 0.5)), ax=Figure().subplots(1, 2))


@pytest.mark.parametrize("draw", [plot_memory, plot_profile, plot_gates])
def test_without_matplotlib_the_way_out_is_said(draw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    of = {
        plot_memory: history_of({1: fading(20, 0.5)}),
        plot_profile: profile_of(fading(20, 0.5)),
        plot_gates: gates(nn.LSTM(2, 3), torch.randn(5, 1, 2))["l0"],
    }[draw]
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    match = rf"{draw.__name__} needs matplotlib, which can't be imported .*: pip install 'gradguard\[plot\]'\."
    with pytest.raises(ImportError, match=match) as caught:
        draw(of)
    assert isinstance(caught.value, GradGuardError)


def test_a_figure_is_written_without_a_display_pyplot_or_a_word_of_matplotlib_before(tmp_path: Path) -> None:
    code = (
        "import sys, torch; from gradguard.report import plot_memory; from gradguard.record import Points;"
        "assert 'matplotlib' not in sys.modules;"
        "one = Points(torch.tensor([1]), *[torch.ones(1)] * 3);"
        "plot_memory({'memory/l0/0': one}).figure.savefig('memory.png');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path, env={"PATH": ""})
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
