"""The movement of the weights beside the gradient norm, at every step of a guarded loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard import Guard
from gradguard.guard.journal import Flush
from gradguard.record import read
from gradguard.recover import Skip
from tests import reference
from tests.guard.loops import batches, loss_of, mlp

KEY = "update_norm/relative"


def matrices(model: nn.Module) -> list[Tensor]:
    return [p.detach().double().clone() for p in model.parameters() if p.ndim == 2]


def moved(before: list[Tensor], after: list[Tensor]) -> float:
    """Over all of the matrices: the model is small enough to be sampled as a whole."""
    was, then = (torch.cat([w.flatten() for w in weights]).numpy() for weights in (before, after))
    return reference.norm(then - was, 2) / reference.norm(was, 2)


@pytest.mark.parametrize("every", [1, 7, 50])
@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
    ],
    ids=["SGD", "Adam", "fused"],
)
def test_the_history_equals_all_weights_compared_at_every_step(
    make: Callable[..., torch.optim.Optimizer], every: int, tmp_path: Path
) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    guard = Guard(model, optimizer, every_n_steps=every, run_dir=tmp_path)
    expected = []
    for batch in batches(40):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        before = matrices(model)
        optimizer.step()
        expected.append(moved(before, matrices(model)))
        model[0].weight.data.mul_(1.001)  # what is done between two steps is none's doing
    found = guard.history[KEY]
    assert found.steps.tolist() == list(range(1, 41))
    assert found.last.tolist() == pytest.approx(expected, rel=1e-3)  # float32 weights have seven digits
    guard.close()
    assert torch.equal(read(tmp_path).history[KEY].last, found.last)


def test_steps_that_were_not_made_have_no_number() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    flushes: list[Flush] = []
    guard = Guard(model, optimizer, recover=Skip())
    guard.listen(flushes.append)
    failing = False

    def fail(*_: object) -> None:
        if failing:
            raise KeyError

    optimizer.register_step_pre_hook(fail)
    for step, batch in enumerate(batches(6), start=1):
        optimizer.zero_grad()
        (loss_of(model, batch) * (math.nan if step == 2 else 1.0)).backward()
        failing = step == 4
        if failing:
            with pytest.raises(KeyError):
                optimizer.step()
        else:
            optimizer.step()
    assert guard.history[KEY].steps.tolist() == [1, 3, 5, 6]
    (flush,) = flushes
    assert flush.block.moved.dtype == torch.float64
    assert flush.block.moved.isnan().tolist() == [False, True, False, True, False, False]


def test_an_overflow_that_the_scaler_skips_has_no_number() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    guard = Guard(model, optimizer)
    for step, batch in enumerate(batches(3), start=1):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.tensor(float(step == 2))
        optimizer.step()
    assert guard.history[KEY].steps.tolist() == [1, 3]


def test_it_rises_before_the_loss_does() -> None:
    torch.manual_seed(0)
    model = mlp(hidden=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    guard = Guard(model, optimizer)
    for step, batch in enumerate(batches(120), start=1):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 100 else 1.0
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        guard.record_loss(loss)
        loss.backward()
        optimizer.step()
    history = guard.history
    pace, loss = history[KEY].last, history["loss"].last
    assert pace[99] > 2 * pace[49:99].max()
    assert loss[99] < 2 * loss[49:99].max()  # the loss of that step knows nothing yet
    assert loss[100:].max() > 10 * loss[49:99].max()


def test_what_all_optimizers_move_is_told_apart_and_a_new_parameter_joins() -> None:
    model = mlp()
    optimizers = [torch.optim.SGD(layer.parameters(), lr=lr) for layer, lr in ((model[0], 0.0), (model[2], 1.0))]
    guard = Guard(model, optimizers)

    def step(batch: Any) -> None:
        loss_of(model, batch).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    for batch in batches(3):
        step(batch)
    assert guard.history[f"0/{KEY}"].last.tolist() == [0, 0, 0]
    assert guard.history[f"1/{KEY}"].last.min() > 0
    optimizers[0].add_param_group({"params": model[4].parameters(), "lr": 1.0})
    step(batches(1)[0])
    assert guard.history[f"0/{KEY}"].last[3] > 0
