"""A million steps of 200 parameters: a small folder, a small history, every extreme of the totals."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from gradguard.detect import Block, Layout, Role, Samples
from gradguard.record import Points, read
from tests.record.records import journal, size, tensor_bytes

STEPS, N, EVERY = 1_000_000, 200, 50
MEGABYTE = 1 << 20


def check(points: Points, values: torch.Tensor, every: int = 1) -> None:
    """Each point has the extremes of exactly its steps."""
    start = 0
    for stop, last, low, high in zip(*(field.tolist() for field in points), strict=True):
        span = values[start : stop // every]
        assert (last, low, high) == (span[-1], span.min(), span.max())
        start = stop // every
    assert start == len(values)


@pytest.mark.slow
def test_a_million_steps_stay_small_and_keep_every_extreme(tmp_path: Path) -> None:
    names = tuple(f"layers.{i}.weight" for i in range(N))
    layout = Layout("optimizer", names, names, (1000,) * N, (Role.WEIGHT,) * N)
    generator = torch.Generator().manual_seed(0)
    norms = torch.rand(20 * EVERY, N, generator=generator, dtype=torch.float64) + 0.5  # used in turn, times a number
    factors = torch.rand(STEPS // EVERY, generator=generator, dtype=torch.float64) + 0.5
    totals = torch.randn(STEPS, generator=generator, dtype=torch.float64).exp()
    losses, ratios = totals.flip(0), torch.rand(STEPS // EVERY, N, generator=generator, dtype=torch.float64)
    made, largest, heaviest, begin = journal(tmp_path, points=1024), 0, 0, time.monotonic()
    nothing, everything = torch.zeros(EVERY, N, dtype=torch.bool), torch.ones(EVERY, dtype=torch.bool)
    for i in range(STEPS // EVERY):
        at = slice(i * EVERY, (i + 1) * EVERY)
        steps = torch.arange(at.start + 1, at.stop + 1)
        grads = norms[i % 20 * EVERY :][:EVERY] * factors[i]
        samples = Samples(steps[-1:], torch.ones(1, N, dtype=torch.float64), ratios[i : i + 1], torch.ones(1, N))
        all_losses = (losses[at], everything)
        none = ~everything
        block = Block(layout, steps, grads, totals[at], nothing, ~nothing[0], none, *all_losses, samples, skipped=none)
        made.take("optimizer", "", block, ())
        if i % 50 == 0:
            largest, heaviest = max(largest, size(tmp_path)), max(heaviest, tensor_bytes(made.history))
    made.close("finished")
    written, largest = time.monotonic(), max(largest, size(tmp_path))
    run = read(tmp_path)
    done = time.monotonic()
    print(f"folder {largest / MEGABYTE:.1f} MiB at most, {size(tmp_path) / MEGABYTE:.1f} at the end; history ", end="")
    print(f"{heaviest / MEGABYTE:.1f} MiB; written in {written - begin:.0f} s, read in {done - written:.1f} s")
    assert largest < 64 * 10**6
    assert heaviest < 16 * MEGABYTE
    assert run.problems == ()
    weight = torch.stack([norms[i % 20 * EVERY :][:EVERY, 7] * factors[i] for i in range(STEPS // EVERY)]).flatten()
    for history in (made.history, run.history):
        assert len(history) == 3 + 3 * N
        check(history["grad_norm/total"], totals)
        check(history["loss"], losses)
        check(history["grad_norm/layers.7.weight"], weight.float())
        check(history["update_ratio/layers.150.weight"], ratios[:, 150].float(), EVERY)
        assert all(500 <= len(points.steps) < 5000 for points in history.values())
