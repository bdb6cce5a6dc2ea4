"""Steps that evaluate their gradients inside, and compiled ones."""

from __future__ import annotations

import pytest
import torch

from gradguard import Guard
from tests.guard.loops import batches, float32_total, loss_of, mlp, train


@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_closure_is_measured_after_it_ran_and_its_loss_is_recorded(by_keyword: bool) -> None:
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    guard = Guard(model, optimizer)
    expected, losses = [], []
    for batch in batches(4):

        def closure(batch=batch) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        expected.append(float32_total(model, batch))
        losses.append((optimizer.step(closure=closure) if by_keyword else optimizer.step(closure)).item())
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-6)
    assert guard.history["loss"].last.tolist() == pytest.approx(losses)


def test_lbfgs_is_measured_once_per_step_at_its_starting_point() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    guard = Guard(model, optimizer)
    expected, calls = [], 0
    for batch in batches(3):

        def closure(batch=batch) -> torch.Tensor:
            nonlocal calls
            calls += 1
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            loss.backward()
            return loss

        expected.append(float32_total(model, batch))
        optimizer.step(closure)
    guard.diagnose()
    assert calls > 6
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "inductor"])
@pytest.mark.filterwarnings("ignore")
def test_compiled_models_and_compiled_optimizer_steps(backend: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend=backend)
    guard = Guard(compiled, optimizer, every_n_steps=5)
    step = torch.compile(optimizer.step, backend=backend)
    expected = []
    torch._dynamo.utils.counters.clear()
    for batch in batches(12):
        optimizer.zero_grad()
        loss_of(compiled, batch).backward()
        expected.append(float32_total(model, batch))
        step()
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-5)
    assert "grad_norm/0.weight" in guard.history
    assert not torch._dynamo.utils.counters["recompile_limit"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_guarded_compiled_step_does_not_recompile_as_steps_pass() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, every_n_steps=3)
    graphs = 0

    def counting(graph, _):  # a Dynamo backend
        nonlocal graphs
        graphs += 1
        return graph.forward

    step = torch.compile(optimizer.step, backend=counting)
    seen = []
    for batch in batches(10):
        optimizer.zero_grad()
        loss_of(model, batch).backward()
        step()
        seen.append(graphs)
    assert seen[3:] == [seen[3]] * 7
    assert guard.diagnose() == []


def test_a_scheduler_and_a_wrapped_step_change_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    guard = Guard(model, optimizer)
    expected = []
    for batch in batches(3):
        expected += train(model, optimizer, [batch])
        scheduler.step()
    guard.diagnose()
    assert guard.history["grad_norm/total"].last.tolist() == pytest.approx(expected, rel=1e-6)


def test_losses_recorded_in_later_evaluations_do_not_enter_the_next_step() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4)
    guard = Guard(model, optimizer)
    first_losses = []
    for batch in batches(3):
        losses = []

        def closure(batch=batch, losses=losses) -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            guard.record_loss(loss)
            losses.append(loss.item())
            loss.backward()
            return loss

        optimizer.step(closure)
        first_losses.append(losses[0])
    assert guard.history["loss"].last.tolist() == pytest.approx(first_losses)


def test_an_argument_of_step_that_is_no_closure_is_left_alone() -> None:
    class Weighted(torch.optim.SGD):
        @torch.no_grad()
        def step(self, weight: float) -> None:
            for param in self.param_groups[0]["params"]:
                param.add_(param.grad, alpha=-weight)

    model = mlp()
    optimizer = Weighted(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    loss_of(model, batches(1)[0]).backward()
    optimizer.step(0.1)
    assert len(guard.history["grad_norm/total"].steps) == 1
