"""A step that is skipped has never been: weights, buffers, optimizer state and step count stay bit for bit."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gradguard.guard.treatment as treatment_module
from gradguard import Guard, Severity, SkipBudgetError, Symptom
from gradguard.clip import ZClip
from gradguard.recover import Skip
from tests.guard.loops import batches

Optimizers = dict[str, Callable[[Any], torch.optim.Optimizer]]
OPTIMIZERS: Optimizers = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    "sgd, fused": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw, foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw, fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
}


class Buffered(nn.Module):
    """Whatever a forward pass leaves behind: running statistics, vectors of a spectral norm, an average, a counter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm1d(4), nn.Linear(4, 8)
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.out = nn.Linear(8, 1)
        self.register_buffer("average", torch.zeros(8))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mask", torch.full((300, 300), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.inner(self.norm(x)).tanh()
        self.average = 0.9 * self.average + 0.1 * hidden.detach().mean(0)  # another tensor each time
        self.calls += 1
        return self.out(self.spectral(hidden).tanh())


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    return copy.deepcopy((model.state_dict(), optimizer.state_dict()))


def assert_untouched(model: nn.Module, optimizer: torch.optim.Optimizer, before: Any) -> None:
    for found, expected in zip((model.state_dict(), optimizer.state_dict()["state"]), before, strict=True):
        expected = expected.get("state", expected)
        assert found.keys() == expected.keys()
        for key, value in found.items():
            values = value if isinstance(value, dict) else {"": value}
            for name, tensor in values.items():
                other = expected[key][name] if isinstance(value, dict) else expected[key]
                assert torch.equal(tensor, other) if isinstance(tensor, Tensor) else tensor == other, (key, name)


def backward(model: nn.Module, batch: tuple[Tensor, Tensor], *, bad: bool = False, scale: Any = None) -> None:
    x = batch[0].clone()
    if bad:
        x[0, 0] = torch.nan
    loss = nn.functional.mse_loss(model(x).float(), batch[1])
    (loss if scale is None else scale(loss)).backward()


def on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge as if the gradients lay where a read would wait."""
    monkeypatch.setattr(treatment_module, "is_on_host", lambda tensor: False)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_nan_batch_moves_nothing(name: str, where: str, accumulate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "device":
        on_a_device(monkeypatch)
    model = Buffered()
    optimizer = OPTIMIZERS[name](model.parameters())
    guard = Guard(model, optimizer, recover=Skip(2), clip=ZClip(max_norm=1.0), every_n_steps=7)
    data = batches(20 * accumulate)
    for step in range(20):
        optimizer.zero_grad()
        window = data[step * accumulate : (step + 1) * accumulate]
        bad = step in (8, 9, 14)
        before = everything(model, optimizer) if bad else None
        for i, batch in enumerate(window):
            backward(model, batch, bad=bad and i == 0)  # the first micro-batch taints the whole window
        optimizer.step()
        if bad:
            assert_untouched(model, optimizer, before)
    assert all(value.isfinite().all() for name, value in model.state_dict().items() if name != "mask")
    (finding,) = guard.diagnose()
    assert (finding.symptom, finding.severity, finding.first_step) == (Symptom.NON_FINITE, Severity.WARNING, 9)
    assert "the weights are untouched" in finding.explanation
    assert guard.history["skipped"].steps.tolist() == [9, 10, 15]
    assert "steps skipped, since their gradients were not finite: 3" in guard.summary()
    assert not hasattr(optimizer, "found_inf")
    assert guard.history["clip/coefficient"].steps.tolist() == [s for s in range(1, 21) if s not in (9, 10, 15)]


@pytest.mark.parametrize("where", ["host", "device"])
def test_the_good_steps_are_those_of_a_run_without_the_bad_ones(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "device":
        on_a_device(monkeypatch)

    def trained(bad: tuple[int, ...]) -> Any:
        torch.manual_seed(0)
        model = Buffered()
        optimizer = OPTIMIZERS["adamw, fused"](model.parameters())
        Guard(model, optimizer, recover=Skip(), clip=ZClip())
        for step, batch in enumerate(batches(60)):
            if step in (30, 40) and step not in bad:
                continue
            optimizer.zero_grad()
            backward(model, batch, bad=step in bad)
            optimizer.step()
        return everything(model, optimizer)[0]

    for a, b in zip(trained((30, 40)).values(), trained(()).values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("bad_at", [3, 11])
def test_under_a_scaler_a_nan_batch_and_an_overflow_move_nothing(fused: bool, bad_at: int) -> None:
    model = Buffered()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    guard = Guard(model, optimizer, recover=Skip(), clip=ZClip(), scaler=scaler, every_n_steps=5)
    for step, batch in enumerate(batches(20)):
        optimizer.zero_grad()
        overflows, bad = step == 6, step == bad_at
        before = everything(model, optimizer)
        with torch.autocast("cpu", torch.float16):
            loss = nn.functional.mse_loss(model(batch[0] * (torch.nan if bad else 1)).float(), batch[1])
        guard.record_loss(loss)
        scaler.scale(loss * (1e38 if overflows else 1)).backward()
        scaler.step(optimizer)
        scaler.update()
        if overflows or bad:
            assert_untouched(model, optimizer, before)
        else:
            assert not torch.equal(model.out.weight, before[0]["out.weight"])
    (finding,) = guard.diagnose()
    assert (finding.first_step, finding.severity) == (bad_at + 1, Severity.WARNING)
    assert guard.history["skipped"].steps.tolist() == [bad_at + 1]
    assert scaler.get_scale() == 2.0**8


@pytest.mark.parametrize("make", [OPTIMIZERS["sgd"], lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3)])
def test_a_closure_that_gives_nan_is_skipped(make: Callable[[Any], torch.optim.Optimizer]) -> None:
    model = Buffered()
    optimizer = make(model.parameters())
    guard = Guard(model, optimizer, recover=Skip())
    for step, batch in enumerate(batches(6)):

        def closure(step=step, batch=batch) -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch[0] * (torch.nan if step == 4 else 1)), batch[1])
            loss.backward()
            return loss

        before = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer.step(closure)
        if step == 4:
            assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert guard.history["skipped"].steps.tolist() == [5]


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("fused", [False, True])
def test_the_budget_is_for_skips_in_a_row(
    where: str, fused: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if where == "device":
        on_a_device(monkeypatch)
    model = Buffered()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    guard = Guard(model, optimizer, recover=Skip(2), every_n_steps=5)
    seen: list[Any] = []

    def train() -> None:
        for step, batch in enumerate(batches(40), start=1):
            optimizer.zero_grad()
            seen.append(everything(model, optimizer))
            backward(model, batch, bad=step in (3, 4, 6, 7, 14, 15) or step > 15)
            optimizer.step()

    caplog.set_level(logging.WARNING, "gradguard")
    with pytest.raises(SkipBudgetError, match=r"Step 16 of optimizer is number 3 in a row .*in norm.weight.*last good"):
        train()
    # On a device without reads it is said at the next flush: until then nothing moves, either.
    assert len(seen) == (20 if where == "device" and fused else 16)
    assert_untouched(model, optimizer, seen[13])
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 6
    assert said[0].startswith("Step 3 of optimizer was skipped: the gradient is not finite in norm.weight")
    assert said[1].endswith("That is 2 of at most 2 in a row.")
    assert guard.history["skipped"].steps.tolist()[:6] == [3, 4, 6, 7, 14, 15]


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_a_scaler_that_skips_for_ever_spends_a_budget_too(
    fused: bool, told: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where the loss is recorded and NaN; where nobody says so, when no scale is left."""
    if where == "device":
        on_a_device(monkeypatch)
    model = Buffered()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    guard = Guard(model, optimizer, recover=Skip(2), scaler=scaler, every_n_steps=1)
    steps: list[int] = []

    def train() -> None:
        for step, batch in enumerate(batches(60), start=1):
            steps.append(step)
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(batch[0] * torch.nan), batch[1])
            if told:
                guard.record_loss(loss)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    with pytest.raises(SkipBudgetError, match="number 3 in a row" if told else "number 41 in a row that the loss scal"):
        train()
    assert steps[-1] == (3 if told else 41)


def test_of_two_optimizers_the_one_with_a_bad_gradient_is_skipped() -> None:
    models = {"a": Buffered(), "b": Buffered()}
    optimizers = {name: OPTIMIZERS["adam"](model.parameters()) for name, model in models.items()}
    guard = Guard(models, optimizers, recover=Skip())
    for step, batch in enumerate(batches(10)):
        for optimizer in optimizers.values():
            optimizer.zero_grad()
        before = everything(models["b"], optimizers["b"])
        for name, model in models.items():  # both forward passes, then both steps
            backward(model, batch, bad=step == 5 and name == "b")
        for optimizer in optimizers.values():
            optimizer.step()
        if step == 5:
            assert_untouched(models["b"], optimizers["b"], before)
    assert guard.history["b/skipped"].steps.tolist() == [6]
    assert "a/skipped" not in guard.history
    assert optimizers["a"].state[models["a"].out.weight]["step"] == 10
    assert optimizers["b"].state[models["b"].out.weight]["step"] == 9


def test_without_recover_nothing_is_hidden() -> None:
    model = Buffered()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    guard = Guard(model, optimizer, clip=ZClip(max_norm=1.0))
    backward(model, batches(1)[0], bad=True)
    optimizer.step()
    assert model.out.weight.isnan().all()
    (finding,) = guard.diagnose()
    assert finding.severity is Severity.CRITICAL


def test_a_finite_gradient_whose_square_overflows_is_clipped_and_not_skipped() -> None:
    model = nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, clip=ZClip(max_norm=1.0), recover=Skip(0))
    model.weight.grad = torch.tensor([[3e19, 4e19]])
    optimizer.step()
    torch.testing.assert_close(model.weight.grad, torch.tensor([[0.6, 0.8]]))
    assert guard.history["grad_norm/total"].last.item() == pytest.approx(5e19)
    assert guard.diagnose() == []


@pytest.mark.parametrize("at", [4, 9, 16])
def test_counts_and_statistics_go_on_from_a_checkpoint(at: int) -> None:
    def loop() -> tuple[nn.Module, torch.optim.Optimizer, Guard]:
        torch.manual_seed(0)
        model = Buffered()
        optimizer = OPTIMIZERS["adam"](model.parameters())
        return model, optimizer, Guard(model, optimizer, recover=Skip(3), clip=ZClip(1.0), every_n_steps=7)

    def train(parts: Any, first: int, last: int) -> None:
        model, optimizer, _ = parts
        for step, batch in list(enumerate(batches(40), start=1))[first - 1 : last]:
            optimizer.zero_grad()
            backward(model, batch, bad=step in (8, 9, 10))
            optimizer.step()

    whole, saved, resumed = loop(), loop(), loop()
    train(whole, 1, 40)
    train(saved, 1, at)
    for part, state in zip(resumed, copy.deepcopy([part.state_dict() for part in saved]), strict=True):
        part.load_state_dict(state)
    train(resumed, at + 1, 40)
    for a, b in zip(whole[0].state_dict().values(), resumed[0].state_dict().values(), strict=True):
        assert torch.equal(a, b)
    (track,), (other,) = (list(parts[2].state_dict()["tracks"].values()) for parts in (whole, resumed))
    assert repr(track["treatment"]) == repr(other["treatment"])
    assert track["treatment"]["skip"] == {"in_a_row": 0, "overflows": 0, "total": 3}
    assert "steps skipped, since their gradients were not finite: 3" in resumed[2].summary()


def test_what_is_lent_to_an_optimizer_whose_step_breaks_off_is_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_device(monkeypatch)

    class Breaking(torch.optim.Optimizer):
        _step_supports_amp_scaling = True
        breaks = True

        def step(self) -> None:
            if self.breaks:
                raise InterruptedError

    model = Buffered()
    optimizer = Breaking(model.parameters(), {})
    guard = Guard(model, optimizer, recover=Skip())
    backward(model, batches(1)[0], bad=True)
    with pytest.raises(InterruptedError):
        optimizer.step()
    optimizer.breaks = False
    optimizer.zero_grad()
    backward(model, batches(2)[1])
    optimizer.step()
    assert not hasattr(optimizer, "found_inf")
    assert guard.history["grad_norm/total"].steps.tolist() == [1, 2], "the second step is no overflow"
