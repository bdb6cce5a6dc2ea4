"""Bounded history: every extreme of the whole run is kept, whatever its length and the blocks it came in."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradguard.record import History, HostReader
from gradguard.record.history import rows


def fill(points: int, values: torch.Tensor, sizes: list[int]) -> History:
    history, start, i = History(points), 0, 0
    while start < len(values):
        stop = min(len(values), start + sizes[i % len(sizes)])
        steps = torch.arange(start + 1, stop + 1)
        history.extend("x", ("a", "b"), rows(steps, torch.stack([values[start:stop], -values[start:stop]], dim=1)))
        start, i = stop, i + 1
    return history


@given(
    st.integers(2, 20), st.integers(1, 300), st.lists(st.integers(1, 40), min_size=1, max_size=5), st.integers(0, 2**31)
)
def test_extremes_steps_and_the_last_value_survive_any_length(points: int, n: int, sizes: list[int], seed: int) -> None:
    values = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    history = fill(points, values, sizes)
    for key, expected in (("x/a", values), ("x/b", -values)):
        found = history[key]
        assert len(found.steps) <= points + 1
        assert found.steps[-1] == n
        assert (found.steps.diff() > 0).all()
        assert found.last[-1] == expected[-1]
        start = 0
        for i, stop in enumerate(found.steps.tolist()):
            assert found.low[i] == expected[start:stop].min()
            assert found.high[i] == expected[start:stop].max()
            assert found.last[i] == expected[stop - 1]
            start = stop


def test_a_short_run_is_kept_whole() -> None:
    values = torch.randn(50)
    found = fill(1024, values, [7])["x/a"]
    assert torch.equal(found.last, values)
    assert torch.equal(found.low, values)
    assert found.steps.tolist() == list(range(1, 51))


def test_a_long_run_keeps_few_points_and_even_ones() -> None:
    found = fill(64, torch.arange(10_000.0), [50])["x/a"]
    assert 32 <= len(found.steps) <= 65
    assert set(found.steps[:-1].diff().tolist()) == {256}


def test_nan_is_no_extreme_and_inf_is() -> None:
    values = torch.tensor([1.0, math.nan, 2.0, math.inf, math.nan, math.nan, math.nan, math.nan])
    found = fill(2, values, [8])["x/a"]
    assert found.low.tolist() == pytest.approx([1, math.nan], nan_ok=True)
    assert found.high.tolist() == pytest.approx([math.inf, math.nan], nan_ok=True)


def test_a_column_that_comes_later_is_nan_before_and_one_that_goes_is_nan_after() -> None:
    history = History(8)
    history.extend("x", ("a", "b"), rows(torch.tensor([1, 2]), torch.tensor([[1.0, 2.0], [3.0, 4.0]])))
    history.extend("x", ("b", "c"), rows(torch.tensor([3]), torch.tensor([[5.0, 6.0]])))
    assert history["x/b"].last.tolist() == [2, 4, 5]
    assert history["x/c"].last.tolist() == pytest.approx([math.nan, math.nan, 6], nan_ok=True)
    assert history["x/a"].last.tolist() == pytest.approx([1, 3, math.nan], nan_ok=True)


def test_it_is_a_mapping_and_a_nameless_column_is_the_group_itself() -> None:
    history = History()
    history.extend("loss", ("",), rows(torch.tensor([1]), torch.tensor([[0.5]])))
    history.extend("x", ("a",), rows(torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1)))
    assert list(history) == ["loss", "x/a"]
    assert len(history) == 2
    assert history["loss"].last.tolist() == [0.5]
    assert len(history["x/a"].steps) == 0
    with pytest.raises(KeyError):
        history["x"]


def test_wide_tables_keep_fewer_points() -> None:
    history, names = History(), tuple(map(str, range(20_000)))
    for step in range(1, 201):
        history.extend("x", names, rows(torch.tensor([step]), torch.zeros(1, 20_000)))
    assert len(history["x/7"].steps) <= 53


def test_the_reader_brings_many_tensors_over_at_once_and_counts() -> None:
    reader = HostReader()
    first, second = reader.read([torch.tensor([[1.0], [2.0]]), torch.tensor(3)])
    assert first.tolist() == [[1], [2]]
    assert second.tolist() == 3
    assert first.dtype == second.dtype == torch.float64
    assert reader.count == 1
