"""The table of what is left over lag and step is the history's, whatever that looks like."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gradguard import Guard
from gradguard.detect import InTime
from gradguard.guard.time_tables import time_tables
from gradguard.record import History, Points, read
from gradguard.report import memory_of, plot_memory
from tests.report.samples import fading, history_of, png, profile_of


def test_what_overflows_is_all_and_the_rest_nothing() -> None:
    sizes = fading(20, 10.0)
    sizes[12:] = torch.inf
    sizes[15] = torch.nan
    memory = memory_of(history_of({1: sizes}))
    right = [float(lag >= 12) if lag != 15 else math.nan for lag in memory.lags.tolist()]
    np.testing.assert_array_equal(memory.shares[0].numpy(), right)


def test_series_of_other_steps_are_put_where_they_belong() -> None:
    def points(steps: list[int], values: list[float]) -> Points:
        return Points(torch.tensor(steps), *[torch.tensor(values)] * 3)

    memory = memory_of(
        {
            "memory/l0/10": points([2, 5], [0.5, 0.25]),
            "loss": points([1, 2], [3.0, 3.0]),
            "memory/l0/2": points([1, 2], [1.0, 2.0]),
            "through_time/l0/horizon": points([5, 9], [7.0, 8.0]),
        }
    )
    assert memory.lags.tolist() == [2, 10]
    assert memory.steps.tolist() == [1, 2, 5]
    np.testing.assert_array_equal(memory.shares.numpy(), [[1.0, np.nan], [1.0, 0.25], [np.nan, 1.0]])
    np.testing.assert_array_equal(memory.horizons.numpy(), [np.nan, np.nan, 7.0])
    assert memory.lengths.isnan().all()


def test_of_a_long_run_the_merged_points_are_drawn() -> None:
    history = History(points=4)
    rates = torch.rand(10, dtype=torch.float64)
    for step in range(1, 11):
        for table in time_tables(InTime(step, None, {"lstm": (profile_of(fading(20, float(rates[step - 1]))),)})):
            history.extend(*table)
    memory = memory_of(history)
    assert memory.steps.tolist() == history["memory/lstm.l0/0"].steps.tolist()
    assert len(memory.steps) <= 4
    np.testing.assert_allclose(memory.shares[:, 1].numpy(), rates[memory.steps - 1].numpy(), rtol=1e-14)


def test_layers_are_found_by_name() -> None:
    history = history_of({1: fading(20, 0.5)}, "enc.l0")
    for table in time_tables(InTime(1, None, {"dec": (profile_of(fading(20, 0.9), "dec.l1_reverse"),)})):
        history.extend(*table)
    assert plot_memory(history, "dec.l1_reverse").get_title().startswith("dec.l1_reverse: ")
    np.testing.assert_allclose(memory_of(history, "dec.l1_reverse").shares[0, 1], 0.9, rtol=1e-14)
    with pytest.raises(ValueError, match=r"needs the name of a layer, of enc\.l0, dec\.l1_reverse; got 'l9'\."):
        plot_memory(history, "l9")
    with pytest.raises(ValueError, match=r"of enc\.l0, dec\.l1_reverse; got no name\."):
        plot_memory(history)


def test_layers_of_several_optimizers_are_told_apart() -> None:
    history = history_of({1: fading(20, 0.5)}, "lstm.l0", "g/")
    assert memory_of(history, "lstm.l0").layer == memory_of(history).layer == "g/lstm.l0"
    assert memory_of(history, "lstm.l0").lengths.tolist() == [20]
    for group, names, points in time_tables(InTime(1, None, {"lstm": (profile_of(fading(20, 0.9)),)})):
        history.extend(f"d/{group}", names, points)
    np.testing.assert_allclose(memory_of(history, "d/lstm.l0").shares[0, 1], 0.9, rtol=1e-14)
    with pytest.raises(
        ValueError, match=r"of g/lstm\.l0, d/lstm\.l0; got 'lstm\.l0', which is more than one of them\."
    ):
        memory_of(history, "lstm.l0")


def test_a_history_without_such_series_is_said() -> None:
    with pytest.raises(ValueError, match=r"no series memory/\.\.\. in it\. Pass Guard\(\.\.\., through_time=True\)"):
        plot_memory(History())
    guard = object()
    with pytest.raises(TypeError, match=r"needs a history, such as guard\.history or .*, got object\."):
        plot_memory(guard)  # type: ignore[arg-type]


def test_a_real_run_and_its_record(tmp_path: Path) -> None:
    lstm = nn.LSTM(2, 4, num_layers=2, bidirectional=True)
    optimizer = torch.optim.SGD(lstm.parameters(), lr=0.1)
    with Guard(lstm, optimizer, every_n_steps=2, through_time=True, run_dir=tmp_path / "run") as guard:
        for length in (30, 40, 30):
            optimizer.zero_grad()
            lstm(torch.randn(length, 3, 2))[1][0].square().mean().backward()  # of h_n: the end of each direction
            optimizer.step()
    layers = ["l0", "l0_reverse", "l1", "l1_reverse"]
    for layer in layers:
        here, there = memory_of(guard.history, layer), memory_of(read(tmp_path / "run").history, layer)
        assert here.steps.tolist() == there.steps.tolist() == [1, 2, 3]
        assert here.lengths.tolist()[1] == 40
        for one, other in zip(here[2:], there[2:], strict=True):
            np.testing.assert_allclose(one.double().numpy(), other.double().numpy(), rtol=1e-6, equal_nan=True)
    with pytest.raises(ValueError, match="of l0, l0_reverse, l1, l1_reverse; got no name"):
        plot_memory(guard.history)
    assert png(plot_memory(guard.history, "l1")).startswith(b"\x89PNG")
