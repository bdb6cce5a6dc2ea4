"""Looking through time leaves no trace: of weights, gradients, buffers, modes, random numbers and listeners."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from gradguard import nn as gnn
from gradguard.probe import through_time
from gradguard.probe.hearing import Ear
from tests.probe.models import IN, H, Model, batch, loss_of, made, same


def state_of(model: nn.Module) -> tuple[Any, ...]:
    parts = list(model.modules())
    tensors = [*model.parameters(), *model.buffers()]
    grads = [p.grad for p in model.parameters()]
    return (
        [(id(t), t.detach().clone()) for t in tensors],
        [(id(g), None if g is None else g.clone()) for g in grads],
        [(id(part), part.training, sorted(vars(part)), len(part._forward_hooks)) for part in parts],
        torch.get_rng_state(),
    )


def unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return torch.equal(before, after)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(unchanged, before, after))
    return before == after


OPTIONS = {"dropout": 0.3, "zoneout": 0.3, "variational_dropout": 0.3, "weight_dropout": 0.3}
TRACELESS: dict[str, Callable[[], nn.Module]] = {
    "nn.LSTM": lambda: nn.LSTM(IN, H, 2, dropout=0.3),
    "GRU": lambda: gnn.GRU(IN, H, 2, **OPTIONS),
    "BatchNormLSTM": lambda: gnn.BatchNormLSTM(IN, H, 2, **OPTIONS),
    "IndRNN": lambda: gnn.IndRNN(IN, H, length=5),
    "spectral norm": lambda: parametrizations.spectral_norm(nn.GRU(IN, H), "weight_hh_l0"),
    "spectral norm of ours": lambda: parametrizations.spectral_norm(gnn.GRU(IN, H), "weight_hh_l0"),
}


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kind", TRACELESS)
def test_nothing_is_changed(kind: str, training: bool, fails: bool) -> None:
    model = Model(TRACELESS[kind]())
    loss_of(model, batch()).backward()
    with torch.no_grad():
        model.rnn.weight_hh_l0.mul_(3.0)  # beyond the bound of an IndRNN
    model.train(training)
    before = state_of(model)

    def loss_fn(model: nn.Module, x: Tensor) -> Tensor:
        loss = loss_of(model, x)
        if fails:
            raise ArithmeticError
        return loss

    if fails:
        with pytest.raises(ArithmeticError):
            through_time(model, batch(), loss_fn)
    else:
        through_time(model, batch(), loss_fn)
    assert unchanged(before, state_of(model))
    assert torch.is_grad_enabled()


def test_a_training_loop_goes_on_bit_for_bit() -> None:
    losses = []
    for looks in (False, True):
        torch.manual_seed(3)
        model = Model(nn.Sequential())
        model.rnn = nn.LSTM(IN, H, 2, dropout=0.3, dtype=torch.float64)
        optimizer = torch.optim.Adam(model.parameters())
        losses.append([])
        for _ in range(4):
            optimizer.zero_grad()
            loss = loss_of(model, batch())
            if looks:
                through_time(model, batch(), loss_of)
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert losses[0] == losses[1]


@pytest.mark.parametrize("kind", [nn.LSTM, gnn.LSTM])
def test_gradients_may_be_off_outside(kind: Any) -> None:
    module, x = made(kind), batch()
    right = through_time(module, x, loss_of)
    with torch.no_grad():
        same(through_time(module, x, loss_of), right)
    with torch.inference_mode():
        same(through_time(module, x, loss_of), right)


@pytest.mark.parametrize("kind", [nn.GRU, gnn.GRU])
def test_another_one_who_listens_goes_on(kind: Any) -> None:
    module = made(kind, 1)
    ear = Ear(module)
    ear.on()
    through_time(module, batch(), loss_of)
    loss_of(module, batch()).backward()
    ear.off()
    assert [call.is_touched for call in ear.calls] == [True], "a probe's own call is none of the loop's"
    loss_of(module, batch()).backward()
    assert len(ear.calls) == 1


def test_copies_hear_nothing() -> None:
    module = made(gnn.GRU, 1)
    ear = Ear(module)
    ear.on()
    copy.deepcopy(module)(batch())
    assert not ear.calls
    ear.off()
    assert "listeners" not in vars(module)
