"""When a guard looks: at its own cadence, when it is asked, together with other processes; and who is told."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gradguard import Guard
from gradguard.detect import NonFinite
from gradguard.guard import Flush
from tests.guard.loops import batches, loss_of, mlp


def steps(guard: Guard, model: torch.nn.Module, optimizer: torch.optim.Optimizer, n: int) -> list[float]:
    losses = []
    for batch in batches(n):
        optimizer.zero_grad()
        loss = loss_of(model, batch)
        guard.record_loss(loss)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def made(**options: object) -> tuple[Guard, torch.nn.Module, torch.optim.Optimizer]:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    return Guard(model, optimizer, every_n_steps=4, **options), model, optimizer


def test_listeners_hear_every_step_once_and_in_order() -> None:
    guard, model, optimizer = made()
    heard: list[Flush] = []
    guard.listen(heard.append)
    steps(guard, model, optimizer, 6)
    assert [flush.block.steps.tolist() for flush in heard] == [[1, 2, 3, 4]]
    guard.flush()
    guard.flush()
    steps(guard, model, optimizer, 3)
    guard.close()
    assert [flush.block.steps.tolist() for flush in heard] == [[1, 2, 3, 4], [5, 6], [7, 8], [9]]
    assert {(flush.optimizer, flush.prefix, flush.events) for flush in heard} == {("optimizer", "", ())}


def test_steps_are_counted_without_a_read() -> None:
    guard, model, optimizer = made()
    steps(guard, model, optimizer, 3)
    assert guard.steps == {"optimizer": 3}
    assert guard.events == ()
    assert guard.host_reads == 0


def test_reduced_losses_are_those_of_a_whole_flush_and_nothing_is_said_in_between() -> None:
    reduced: list[int] = []

    def mean_with_another_rank(losses: Tensor) -> Tensor:
        reduced.append(len(losses))
        return (losses + 10 * losses) / 2

    guard, model, optimizer = made(reduce_losses=mean_with_another_rank)
    losses = steps(guard, model, optimizer, 6)
    assert guard.diagnose() == []
    assert guard.history["loss"].steps.tolist() == [1, 2, 3, 4]  # one rank alone must not ask the others
    assert "at the end" in guard.summary()
    assert reduced == [4]
    guard.flush()
    assert guard.history["loss"].last.tolist() == pytest.approx([5.5 * loss for loss in losses])
    losses += steps(guard, model, optimizer, 1)
    guard.close("failed", together=False)
    assert reduced == [4, 2]
    assert guard.history["loss"].last[-1].item() == pytest.approx(losses[-1])  # this rank's own: nobody else is there


@pytest.mark.parametrize(("last", "says"), [(9.0, "the loss grew from 2 to 9"), (3.0, "healthy, by 1 rules")])
def test_a_loss_that_grew_is_not_called_healthy(last: float, says: str) -> None:
    guard, model, optimizer = made(detectors=[NonFinite()])
    for i in range(40):
        optimizer.zero_grad()
        loss_of(model, batches(1)[0]).backward()
        guard.record_loss(2.0 + (last - 2.0) * min(1.0, i / 30))
        optimizer.step()
    assert says in guard.summary()
