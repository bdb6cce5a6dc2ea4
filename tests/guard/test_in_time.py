"""A guard that looks through time: what it sees, and that nobody would know that it looks."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gradguard import Guard, probe
from gradguard import nn as gnn
from gradguard.errors import GradGuardWarning
from gradguard.probe import ThroughTime, through_time
from gradguard.record import read
from tests.guard.recurrent import FEATURES, UNITS, Looping, Reader, batches, loss_of, made, trained

MODELS: dict[str, Callable[[], nn.Module]] = {
    "LSTM": Reader,
    "GRU, two layers": lambda: Reader(nn.GRU(FEATURES, UNITS, num_layers=2)),
    "LSTM, dropout between layers": lambda: Reader(nn.LSTM(FEATURES, UNITS, num_layers=2, dropout=0.5)),
    "LayerNormLSTM, options": lambda: Reader(
        gnn.LayerNormLSTM(FEATURES, UNITS, num_layers=2, dropout=0.3, zoneout=0.2, variational_dropout=0.2)
    ),
    "BatchNormLSTM": lambda: Reader(gnn.BatchNormLSTM(FEATURES, UNITS)),
    "a loop of one's own": lambda: Looping(probe.watch_state),
}


def layer_of(name: str) -> str:
    return "state" if name.startswith("a loop") else "rnn.l0"


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_random_numbers_are_those_of_a_run_without_it(name: str) -> None:
    ends = []
    for asked in (False, True):
        model = made(MODELS[name])
        trained(model, 8, through_time=asked)
        ends.append([*model.state_dict().values(), torch.get_rng_state()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_sampled_step_shows_what_one_call_shows() -> None:
    model = made(Reader)
    (expected,) = through_time(model, batches(1)[0], loss_of)
    guard = trained(model, 1, through_time=True)
    found = guard.history
    for lag in (0, 1, 5, 11):
        assert found[f"memory/rnn.l0/{lag}"].last[0] == pytest.approx(float(expected.memory[lag]), rel=1e-5)
    assert found["through_time/rnn.l0/horizon"].last[0] == pytest.approx(expected.horizon, rel=1e-4)
    assert found["through_time/rnn.l0/rate"].last[0] == pytest.approx(expected.decay.rate, rel=1e-4)
    assert found["through_time/rnn.l0/length"].last[0] == 30
    opened = {gate.gate: gate for gate in expected.gates}
    for gate in "ifgo":
        mean = float(opened[gate].mean.mean())
        assert found[f"gates/rnn.l0/{gate}/mean"].last[0] == pytest.approx(mean, abs=1e-5)
    bins = [float(found[f"gates/rnn.l0/f/bin_{k}"].last[0]) for k in range(20)]
    assert bins == pytest.approx(opened["f"].histogram.tolist(), abs=1e-5)


def test_steps_are_sampled_as_fixed_before() -> None:
    guard = trained(made(Reader), 50, through_time=ThroughTime(every_n_steps=20))
    assert guard.history["through_time/rnn.l0/horizon"].steps.tolist() == [1, 2, 3, 4, 8, 16, 20, 40]


@pytest.mark.parametrize("name", MODELS)
def test_it_reads_no_oftener_than_without(name: str) -> None:
    reads = [trained(made(MODELS[name]), 8, through_time=asked).host_reads for asked in (False, True)]
    assert reads[0] == reads[1]


@pytest.mark.parametrize("kind", [Reader, lambda: Reader(gnn.GRU(FEATURES, UNITS)), lambda: Looping(probe.watch_state)])
def test_a_look_reads_nothing_on_the_host(kind: Callable[[], nn.Module]) -> None:
    model = kind().to("meta")
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=0.1), through_time=True)
    x, y = torch.empty(30, 4, FEATURES, device="meta"), torch.empty(4, 1, device="meta")
    for _ in range(3):
        loss_of(model, (x, y)).backward()
        guard.measure()
        track = next(iter(guard._tracks))
        track.before_step(None)
        track.after_step()
    assert len(track.looked) == 3
    assert guard.host_reads == 0
    with pytest.raises(NotImplementedError, match="meta tensor"):
        guard.flush()


def test_hooks_are_there_for_the_sampled_steps_alone() -> None:
    model = made(Reader)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    there = []
    for batch in batches(6):
        there.append(bool(model.rnn._forward_hooks))
        loss_of(model, batch).backward()
        optimizer.step()
    assert there == [True] * 4 + [False] * 2
    guard.close()
    again = Guard(model, optimizer, through_time=True)
    assert model.rnn._forward_hooks
    again.close()
    assert not model.rnn._forward_hooks


@pytest.mark.parametrize("name", ["LSTM", "LayerNormLSTM, options"])
def test_copies_and_pickles_of_a_model_that_is_listened_to_are_on_their_own(name: str) -> None:
    model = made(MODELS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    for twin in (
        (copy.deepcopy(model), pickle.loads(pickle.dumps(model))) if name == "LSTM" else (copy.deepcopy(model),)
    ):
        loss_of(twin, batches(1)[0]).backward()  # nobody hears it
    loss_of(model, batches(1)[0]).backward()
    optimizer.step()
    (calls,) = [len(ear.calls) for track in guard._tracks for ear in track.in_time.ears.values()]
    assert calls == 0
    assert guard.history["through_time/rnn.l0/length"].last.tolist() == [30]


def test_of_accumulation_the_last_backward_pass_counts() -> None:
    data = batches(2)
    first = made(Reader)
    (expected,) = through_time(first, data[1], loss_of)
    optimizer = torch.optim.SGD(first.parameters(), lr=0.1)
    guard = Guard(first, optimizer, through_time=True)
    for batch in data:
        loss_of(first, batch).backward()
    optimizer.step()
    assert guard.history["memory/rnn.l0/0"].last[0] == pytest.approx(float(expected.memory[0]), rel=1e-5)


@pytest.mark.parametrize("kind", [Reader, lambda: Reader(gnn.GRU(FEATURES, UNITS))])
def test_a_probes_own_call_is_none_of_the_loops(kind: Callable[[], nn.Module]) -> None:
    model, (own, other) = made(kind), batches(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer, through_time=True)
    (expected,) = through_time(model, own, loss_of)
    through_time(model, other, loss_of)
    probe.gates(model.rnn, other[0])
    loss_of(model, own).backward()
    through_time(model, other, loss_of)
    optimizer.step()
    assert guard.history["memory/rnn.l0/0"].last.tolist() == pytest.approx([float(expected.memory[0])], rel=1e-5)


def test_norms_are_those_of_the_loss_whatever_its_scale() -> None:
    norms = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=2.0**10)):
        model = made(Reader)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        guard = Guard(model, optimizer, through_time=True, scaler=scaler)
        loss = loss_of(model, batches(1)[0])
        if scaler is None:
            loss.backward()
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
        norms.append(float(guard.history["memory/rnn.l0/3"].last[0]))
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)


def test_of_two_optimizers_each_has_the_modules_that_it_trains() -> None:
    models = {"a": made(Reader), "b": made(Reader, 1)}
    optimizers = {name: torch.optim.SGD(model.parameters(), lr=0.1) for name, model in models.items()}
    guard = Guard(models, optimizers, through_time=True)
    for name, model in models.items():
        loss_of(model, batches(1)[0]).backward()
        optimizers[name].step()
    series = [name for name in guard.history if name.endswith("/horizon")]
    assert series == ["a/through_time/a.rnn.l0/horizon", "b/through_time/b.rnn.l0/horizon"]


def test_the_record_keeps_it(tmp_path: Path) -> None:
    guard = trained(made(Reader), 10, through_time=True, run_dir=tmp_path / "run")
    kept = read(tmp_path / "run").history
    names = {name for name in guard.history if name.startswith(("memory/", "gates/", "through_time/"))}
    assert len(names) > 80
    for name in names:
        assert torch.equal(kept[name].last.nan_to_num(-1), guard.history[name].last.nan_to_num(-1)), name


def test_a_guard_that_was_loaded_samples_on() -> None:
    model, settings = made(Reader), ThroughTime(every_n_steps=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = Guard(model, optimizer, through_time=settings)
    for batch in batches(6):
        loss_of(model, batch).backward()
        optimizer.step()
    state = first.state_dict()
    first.close()
    second = Guard(model, optimizer, through_time=settings)
    second.load_state_dict(state)
    for batch in batches(6):
        loss_of(model, batch).backward()
        optimizer.step()
    assert second.history["through_time/rnn.l0/horizon"].steps.tolist() == [1, 2, 3, 4, 8, 12]


class Bypassing(Reader):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn.forward(x)[0][-1])


class Detaching(Reader):
    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.rnn(x)[0][-1].detach())


class StepByStep(Reader):
    def forward(self, x: Tensor) -> Tensor:
        states = None
        for row in x:
            out, states = self.rnn(row.unsqueeze(0), states)
        return self.out(out[-1])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Bypassing, "no call of it was heard: its forward is called directly"),
        (Detaching, "no gradient came to it: the loss does not depend on it"),
        (StepByStep, "called for one step at a time. Pass its states to gradguard.probe.watch_state"),
    ],
)
def test_what_can_not_be_seen_is_said_once(kind: Callable[[], nn.Module], message: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        guard = trained(made(kind), 20, through_time=True)
    ours = [str(w.message) for w in caught if issubclass(w.category, GradGuardWarning)]
    assert len(ours) == 1
    assert message in ours[0]
    assert not any(name.startswith("through_time/") for name in guard.history)


@pytest.mark.parametrize("rnn", [nn.LSTM, gnn.LSTM], ids=["torch", "gradguard"])
def test_a_compiled_graph_is_named_as_the_reason(rnn: type[nn.Module]) -> None:
    model = torch.compile(made(lambda: Reader(rnn(FEATURES, UNITS))), backend="eager")
    with pytest.warns(GradGuardWarning, match=r"or it is part of a compiled graph: see gradguard\.probe\.through_time"):
        trained(model, 4, through_time=True)


def test_cells_that_a_loop_calls_are_seen_as_if_it_told_their_states() -> None:
    guard = trained(made(Looping), 6, through_time=True)
    told = trained(made(lambda: Looping(probe.watch_state)), 6, through_time=True)
    assert guard.history["through_time/cell/length"].last.tolist() == [30] * 4
    for what in ("horizon", "growth", "length"):
        mine, its = (of.history[f"through_time/{name}/{what}"] for of, name in ((guard, "cell"), (told, "state")))
        assert mine.last.tolist() == its.last.tolist()
    assert not any(name.startswith("through_time/cell/") for name in told.history)  # what the loop says goes first


@pytest.mark.parametrize("cell", [nn.RNNCell, nn.GRUCell, gnn.LayerNormLSTMCell])
def test_each_run_through_a_loop_is_told_apart(cell: type[nn.Module]) -> None:
    class Encoding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = cell(FEATURES, UNITS), nn.Linear(UNITS, 1)

        def forward(self, x: Tensor) -> Tensor:
            ends = []
            for part in x.split(10):
                state = None
                for row in part:
                    state = self.cell(row, hx=state) if state is not None else self.cell(row)
                ends.append(state[0] if isinstance(state, tuple) else state)
            return self.out(torch.stack(ends).mean(0))

    guard = trained(made(Encoding), 4, through_time=True)
    assert set(guard.history["through_time/cell/length"].last.tolist()) == {10.0}


class Resetting(Looping):
    def forward(self, x: Tensor) -> Tensor:
        for row in x:
            h, _ = self.cell(row)  # a state that no step takes over
        return self.out(h)


def test_cells_of_which_no_loop_is_heard_are_said_once() -> None:
    with pytest.warns(GradGuardWarning, match=r"has cells, but none that a loop calls with the state it gave"):
        trained(made(Resetting), 6, through_time=True)


def test_a_model_without_recurrence_is_refused() -> None:
    with pytest.raises(ValueError, match=r"needs a model with a recurrent module .* Linear has none.*modules=\(\)"):
        trained(nn.Linear(FEATURES, 1), 1, through_time=True)
    with pytest.raises(ValueError, match=r"of which Reader has rnn; got encoder\."):
        trained(made(Reader), 1, through_time=ThroughTime(modules=["encoder"]))


@pytest.mark.parametrize("wrong", [1, "yes", ThroughTime])
def test_something_else_is_refused(wrong: object) -> None:
    with pytest.raises(
        TypeError, match=r"Guard needs through_time to be True, False or a gradguard\.probe\.ThroughTime"
    ):
        trained(made(Reader), 1, through_time=wrong)


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"lag": 0}, {"every_n_steps": 2.5}])
def test_settings_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises((ValueError, TypeError), match="ThroughTime needs"):
        ThroughTime(**wrong)


def test_a_loop_of_ones_own_is_seen_where_it_tells_its_states() -> None:
    guard = trained(made(lambda: Looping(probe.watch_state)), 6, through_time=ThroughTime(modules=()))
    assert guard.history["through_time/state/length"].last.tolist() == [30] * 4
