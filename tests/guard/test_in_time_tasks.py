"""On the adding problem the findings tell an RNN that fails from an LSTM that solves it; a short task raises none."""

from __future__ import annotations

import pytest

from benchmarks.through_time import trained

SEEDS = (0, 1)  # ten of each: benchmarks/results/through_time.md


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_plain_rnn_that_fails_is_found(seed: int) -> None:
    outcome = trained(("RNN, adding", seed))
    assert outcome.loss > 0.15
    assert outcome.now


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(
    "task", ["LSTM with chrono, adding", "RNN, mean of the last five", "LSTM, mean of the last five"]
)
def test_nothing_is_said_of_one_that_learns(task: str, seed: int) -> None:
    outcome = trained((task, seed))
    assert outcome.loss < 0.01
    assert not outcome.ever
