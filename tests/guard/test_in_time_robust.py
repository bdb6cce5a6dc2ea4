"""Nothing that a look meets ends a run, and nothing is held for it: no graph, no hook, no other loop's gradients."""

from __future__ import annotations

import copy
import gc
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradguard import Guard, probe
from gradguard import nn as gnn
from gradguard.detect import Severity, Symptom
from gradguard.errors import GradGuardWarning
from gradguard.probe import ThroughTime, through_time
from gradguard.recover import Skip
from tests.guard.recurrent import FEATURES, UNITS, Looping, Reader, batches, loss_of, made, trained

KINDS: dict[str, Callable[[], nn.Module]] = {
    "torch": Reader,
    "ours": lambda: Reader(gnn.GRU(FEATURES, UNITS)),
    "a loop": lambda: Looping(probe.watch_state),
}


@pytest.mark.parametrize("factor", [0.0, float("nan")])
@pytest.mark.parametrize("name", KINDS)
def test_a_gradient_of_zeros_or_nan_at_a_sampled_step_is_no_trouble(name: str, factor: float) -> None:
    model = made(KINDS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True, recover=Skip(budget=5))
    for step, batch in enumerate(batches(4)):
        optimizer.zero_grad()
        (loss_of(model, batch) * (factor if step < 3 else 1.0)).backward()
        optimizer.step()
    layer = "state" if name == "a loop" else "rnn.l0"
    points = guard.history[f"memory/{layer}/0"]
    assert points.steps[points.last.isfinite()].tolist() == [4]
    guard.close()


class Padded(nn.LSTM):
    """A forward of its own, with lengths."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Any:  # type: ignore[override]
        return super().forward(2 * x)


def test_a_subclass_with_a_forward_of_its_own_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"but rnn has a forward of its own\. Let it hold the torch module"):
        trained(made(lambda: Reader(Padded(FEATURES, UNITS))), 1, through_time=True)
    both = nn.ModuleDict({"a": Reader(Padded(FEATURES, UNITS)), "b": Reader()})
    assert list(probe.through_time.__globals__["chosen"]("x", {"": both}, None)) == ["b.rnn"]


@pytest.mark.parametrize("name", ["torch", "ours"])
def test_a_replay_that_fails_is_said_and_training_goes_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr("gradguard.probe.looking.replay", fails)
    with pytest.warns(GradGuardWarning, match="rnn is not looked at through time: OutOfMemoryError: no memory left"):
        guard = trained(made(KINDS[name]), 6, through_time=True)
    assert guard.steps == {"optimizer": 6}


def test_of_a_game_each_one_is_seen_by_its_own_loss() -> None:
    generator, critic = made(Reader), made(lambda: Reader(nn.GRU(FEATURES, UNITS)), 1)
    optimizers = [torch.optim.SGD(one.parameters(), lr=0.0) for one in (generator, critic)]
    guard = Guard({"g": generator, "d": critic}, {"g": optimizers[0], "d": optimizers[1]}, through_time=True)
    for batch in batches(4):
        for optimizer, scale in ((optimizers[1], 1.0), (optimizers[0], 1000.0)):
            for one in optimizers:
                one.zero_grad()
            ((loss_of(generator, batch) + loss_of(critic, batch)) * scale).backward()
            optimizer.step()
    sizes = guard.history["d/memory/d.rnn.l0/0"].last
    own = through_time(critic, batches(1)[0], lambda m, b: loss_of(m, b))[0].memory[0]
    assert sizes[0] == pytest.approx(float(own), rel=1e-4)
    assert sizes.max() < 50 * sizes.min()
    guard.close()


@pytest.mark.parametrize("name", ["torch", "ours"])
def test_calls_without_a_backward_do_not_crowd_out_the_one_that_counts(name: str) -> None:
    model = made(KINDS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    (x, y), *_ = batches(1)
    for _ in range(6):
        model(x)
    loss_of(model, (x, y)).backward()
    optimizer.step()
    assert "memory/rnn.l0/0" in guard.history
    guard.close()


@pytest.mark.parametrize("name", KINDS)
def test_no_graph_and_no_gradient_is_held(name: str) -> None:
    model = made(KINDS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    (x, y), *_ = batches(1)
    leaf = x.clone().requires_grad_()
    made_of_it = leaf * 1.0  # what stands before the module in the graph
    node = weakref.ref(made_of_it)
    model(made_of_it)  # as a validation with gradients on, or a batch that failed
    del made_of_it
    gc.collect()
    assert node() is None
    loss_of(model, (x, y)).backward()
    optimizer.step()
    for track in guard._tracks:
        assert not any(ear.calls for ear in track.in_time.ears.values())
        assert not track.in_time.states._passes
    guard.close()


def test_a_guard_that_goes_without_a_word_leaves_a_hook_that_does_nothing() -> None:
    model = made(Reader)
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), through_time=True)
    gone = weakref.ref(guard)
    del guard
    gc.collect()
    assert gone() is None
    loss_of(model, batches(1)[0]).backward()


def test_a_guard_that_is_refused_leaves_nothing_behind() -> None:
    model = made(Reader)
    with pytest.raises(TypeError, match="scaler"):
        Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), through_time=True, scaler=object())
    assert not model.rnn._forward_hooks


def test_a_saved_state_stays_as_it_was_saved() -> None:
    model = made(Reader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)

    def train(steps: int) -> None:
        for batch in batches(steps):
            optimizer.zero_grad()
            loss = loss_of(model, batch)
            guard.record_loss(loss)
            loss.backward()
            optimizer.step()

    train(10)
    state = guard.state_dict()
    kept = repr(state)
    train(20)
    guard.flush()
    assert repr(state) == kept
    guard.close()
    with pytest.raises(ValueError, match="load_state_dict needs an open guard"):
        guard.load_state_dict(state)


@pytest.mark.parametrize("name", ["torch", "ours"])
def test_a_transform_of_torch_func_is_not_the_loop(name: str) -> None:
    model = made(KINDS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    own, other = batches(2)
    (expected,) = through_time(model, own, loss_of)
    loss_of(model, own).backward()
    weights = dict(model.named_parameters())

    def loss(weights: dict[str, Tensor]) -> Tensor:
        return (torch.func.functional_call(model, weights, (other[0],)) - other[1]).square().mean()

    torch.func.grad(loss)(weights)
    optimizer.step()
    assert guard.history["memory/rnn.l0/0"].last.tolist() == pytest.approx([float(expected.memory[0])], rel=1e-5)
    guard.close()


def test_a_guard_can_be_copied_in_the_middle_of_a_sampled_step() -> None:
    model = made(Reader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    loss_of(model, batches(1)[0]).backward()
    watch = next(iter(guard._tracks)).in_time
    assert not copy.deepcopy(watch.ears["rnn"]).calls
    guard.close()


def test_what_no_optimizer_trains_is_named() -> None:
    model = made(Reader)
    with pytest.warns(GradGuardWarning, match="Not looked at through time: rnn, which no optimizer trains"):
        Guard(model, torch.optim.SGD(model.out.parameters(), lr=0.1), through_time=True).close()


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, gnn.LSTM])
def test_two_layers_in_two_directions_do_not_seem_to_explode(kind: type[nn.Module]) -> None:
    model = made(lambda: Reader(kind(FEATURES, UNITS, num_layers=2, bidirectional=True)))
    model.out = nn.Linear(2 * UNITS, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guard = trained(model, 20, length=60, through_time=ThroughTime(every_n_steps=2))
    assert all(f.severity is Severity.INFO or f.symptom is not Symptom.EXPLODING_TIME for f in guard.diagnose())
    assert float(guard.history["through_time/rnn.l0_reverse/growth"].high.max()) < 10
