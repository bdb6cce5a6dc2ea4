"""A real GradScaler on the CPU: unscaled numbers, and overflows that are counted and enter nothing."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from gradguard import Guard, Severity, Symptom
from tests.guard.loops import batches, float32_total, loss_of, mlp, total_of


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("unscale_first", [False, True])
@pytest.mark.parametrize("measure", [False, True])
def test_totals_equal_float32_and_overflows_are_counted_apart(fused: bool, unscale_first: bool, measure: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**24, growth_interval=5)
    guard = Guard(model, optimizer, scaler=scaler, every_n_steps=7)
    expected, skipped = {}, []
    for step, batch in enumerate(batches(30), start=1):
        optimizer.zero_grad()
        expected[step] = float32_total(model, batch)
        with torch.autocast("cpu", torch.float16):
            loss = loss_of(model, batch)
        guard.record_loss(loss)
        scaler.scale(loss).backward()
        if unscale_first:
            scaler.unscale_(optimizer)
        if measure:
            guard.measure()
        before = copy.deepcopy(model.state_dict())
        scaler.step(optimizer)
        if all(torch.equal(v, model.state_dict()[k]) for k, v in before.items()):
            skipped.append(step)
        scaler.update()
    assert guard.diagnose() == []
    assert len(skipped) > 3, "the run was meant to overflow"
    totals = guard.history["grad_norm/total"]
    assert totals.steps.tolist() == [step for step in expected if step not in skipped]
    assert totals.last.tolist() == pytest.approx([expected[s] for s in totals.steps.tolist()], rel=1e-3)
    assert f"overflows, skipped by the loss scaler: {len(skipped)}" in guard.summary()
    assert "steps with NaN or Inf" not in guard.summary()
    assert guard.history["loss"].steps.tolist()[-1] == 30


def test_a_fused_optimizer_needs_no_scaler_argument() -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    guard = Guard(model, optimizer)
    scaler.scale(loss_of(model, batches(1)[0])).backward()
    scaled = total_of(model)
    scaler.step(optimizer)
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(scaled / 1024, rel=1e-6)


def test_an_overflow_step_moves_nothing_so_its_update_ratio_is_unknown() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    guard = Guard(model, optimizer, every_n_steps=1)
    for loss_scale in (1.0, float("inf")):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batches(1)[0]) * loss_scale).backward()
        scaler.step(optimizer)
        scaler.update()
    assert guard.diagnose() == []
    assert guard.history["update_ratio/0.weight"].last.isnan().tolist() == [False, True]
    assert guard.history["grad_norm/total"].steps.tolist() == [1]


def test_one_scaler_for_two_optimizers_counts_the_skip_of_the_one_that_overflowed() -> None:
    models = {"a": mlp(), "b": mlp()}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    guard = Guard(models, optimizers, scaler=scaler)
    for name, model in models.items():
        scaler.scale(loss_of(model, batches(1)[0]) * (float("inf") if name == "b" else 1.0)).backward()
    for optimizer in optimizers.values():
        scaler.step(optimizer)
    scaler.update()
    summary = guard.summary()
    assert summary.index("a (SGD)") < summary.index("b (SGD)") < summary.index("loss scaler: 1")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pure_half_parameters_are_measured_in_float32(dtype: torch.dtype) -> None:
    model = nn.Linear(100, 100, bias=False).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer)
    model.weight.grad = torch.full((100, 100), 3000.0, dtype=dtype)
    expected = total_of(model)
    optimizer.step()
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("fused", [False, True])
def test_a_run_that_the_scaler_skips_for_ever_is_not_healthy(fused: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
    scaler = torch.amp.GradScaler("cpu")
    guard = Guard(model, optimizer, scaler=scaler)
    for x, y in batches(60):
        optimizer.zero_grad()
        scaler.scale(nn.functional.mse_loss(model(x), y * torch.nan)).backward()
        scaler.step(optimizer)
        scaler.update()
    (finding,) = guard.diagnose()
    assert finding.symptom is Symptom.NON_FINITE
    assert finding.severity is Severity.CRITICAL
    assert (finding.first_step, finding.last_step, finding.active) == (1, 60, True)
    assert "skips every step" in finding.explanation


def test_two_guards_on_one_scaler_close_in_any_order_and_a_copy_of_it_is_plain() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    before = dict(vars(scaler))
    runs = []
    for _ in range(2):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        runs.append((model, optimizer, Guard(model, optimizer, scaler=scaler)))
    for twin in (copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert twin.step.__self__ is twin
        assert twin.step.__func__ is torch.amp.GradScaler.step
    runs[1][2].close()
    model, optimizer, guard = runs[0]
    scaler.scale(loss_of(model, batches(1)[0]) * float("inf")).backward()
    scaler.step(optimizer)
    scaler.update()
    assert "loss scaler: 1" in guard.summary()
    guard.close()
    assert vars(scaler).keys() == before.keys()


def test_measure_after_an_iteration_that_was_unscaled_but_not_stepped() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    guard = Guard(model, optimizer, scaler=scaler)
    for _ in range(2):
        optimizer.zero_grad()
        scaler.scale(loss_of(model, batches(1)[0])).backward()
        expected = total_of(model) / 1024
        assert guard.measure().total.item() == pytest.approx(expected, rel=1e-6)
        scaler.unscale_(optimizer)
        assert guard.measure().total.item() == pytest.approx(expected, rel=1e-6)
        scaler.update()


def test_measure_without_the_scaler_is_not_believed_where_the_optimizer_knows_better() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    guard = Guard(model, optimizer)
    scaler.scale(loss_of(model, batches(1)[0])).backward()
    expected = total_of(model) / 1024
    guard.measure()
    scaler.step(optimizer)
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(expected, rel=1e-6)


def test_the_exact_path_divides_the_scale_out_too() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, scaler=torch.amp.GradScaler("cpu", init_scale=4.0), every_n_steps=1)
    for _ in range(3):
        model.weight.grad = torch.tensor([[3e19, 4e19]])
        guard.measure()
        optimizer.step()
    assert guard.history["grad_norm/total"].last[-1].item() == pytest.approx(1.25e19, rel=1e-6)


def test_a_disabled_scaler_scales_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    guard = Guard(model, optimizer, scaler=scaler)
    scaler.scale(loss_of(model, batches(1)[0])).backward()
    expected = total_of(model)
    guard.measure()
    scaler.step(optimizer)
    scaler.update()
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(expected, rel=1e-6)


def test_an_optimizer_that_is_none_of_torchs_may_share_the_scaler() -> None:
    class Larc:
        def __init__(self, optim: torch.optim.Optimizer) -> None:
            self.optim, self.param_groups = optim, optim.param_groups

        def step(self) -> None:
            self.optim.step()

    models = [mlp(), mlp()]
    ours, theirs = (torch.optim.SGD(model.parameters(), lr=0.1) for model in models)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    guard = Guard(models[0], ours, scaler=scaler)
    for model in models:
        scaler.scale(loss_of(model, batches(1)[0])).backward()
    scaler.step(Larc(theirs))
    scaler.step(ours)
    scaler.update()
    assert len(guard.history["grad_norm/total"].steps) == 1
