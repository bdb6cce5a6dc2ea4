"""A strict run stops at a critical finding, with everything written and nothing left behind."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from gradguard import CriticalFindingError, GradGuardError, Guard, Severity, Symptom
from gradguard.record import read
from tests.guard import strict_workers
from tests.guard.loops import batches, loss_of, mlp

KINDS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "fused": lambda p: torch.optim.Adam(p, fused=True),
}


def hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def go(model: nn.Module, optimizer: torch.optim.Optimizer, n: int, *, bad_at: int, first: int = 1) -> None:
    for step, batch in enumerate(batches(n), start=first):
        optimizer.zero_grad()
        (loss_of(model, batch) * (math.nan if step == bad_at else 1.0)).backward()
        optimizer.step()


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("managed", [False, True])
def test_it_stops_out_of_the_step_whose_flush_noticed_it(
    make: Callable[..., torch.optim.Optimizer], managed: bool, tmp_path: Path
) -> None:
    model = mlp()
    optimizer = make(model.parameters())
    before = hooks(optimizer)
    guard = Guard(model, optimizer, every_n_steps=4, strict=True, run_dir=tmp_path)
    words = r"(?s)strict=True.*non_finite in.*steps 6 to 8"
    with pytest.raises(CriticalFindingError, match=words) as caught, guard if managed else nullcontext():
        go(model, optimizer, 20, bad_at=6)
    assert isinstance(caught.value, GradGuardError)
    finding = caught.value.finding
    assert (finding.symptom, finding.severity, finding.first_step) == (Symptom.NON_FINITE, Severity.CRITICAL, 6)
    assert pickle.loads(pickle.dumps(caught.value)).finding == finding
    assert guard.steps == {"optimizer": 8}
    assert guard.closed
    assert hooks(optimizer) == before
    run = read(tmp_path)
    assert run.manifest.status == "failed: CriticalFindingError"
    assert run.history["grad_norm/total"].steps.tolist() == list(range(1, 9))
    assert run.findings[0] == finding
    assert guard.diagnose()[0] == finding
    assert "non_finite" in guard.summary()
    assert guard.state_dict()["version"] == 1
    guard.close()
    go(model, optimizer, 3, bad_at=0)  # the loop may go on, unwatched or with another guard
    Guard(model, optimizer).close()


@pytest.mark.parametrize("managed", [False, True])
def test_what_the_last_steps_show_is_raised_as_it_closes(managed: bool, tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, strict=True, run_dir=tmp_path)

    def last_steps() -> None:
        with guard if managed else nullcontext():
            go(model, optimizer, 3, bad_at=2)
        guard.close()

    with pytest.raises(CriticalFindingError, match="non_finite"):
        last_steps()
    assert read(tmp_path).manifest.status == "failed: CriticalFindingError"
    assert hooks(optimizer) == 0
    guard.close()  # once


def test_another_exception_of_the_loop_is_the_one_that_goes_on(tmp_path: Path) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loop() -> None:
        with Guard(model, optimizer, strict=True, run_dir=tmp_path):
            go(model, optimizer, 3, bad_at=2)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        loop()
    assert read(tmp_path).manifest.status == "failed: KeyError"


def test_what_diagnose_saw_first_stops_the_next_step() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, strict=True)
    go(model, optimizer, 3, bad_at=2)
    assert guard.diagnose()[0].symptom is Symptom.NON_FINITE  # to ask raises nothing
    assert not guard.closed
    with pytest.raises(CriticalFindingError):
        go(model, optimizer, 1, bad_at=0, first=4)
    assert guard.steps == {"optimizer": 4}


def test_a_scaler_that_skips_every_step_stops_it_as_well() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    guard = Guard(model, optimizer, scaler=scaler, every_n_steps=5, strict=True)
    assert "step" in vars(scaler)

    def loop() -> None:
        for batch in batches(100):
            optimizer.zero_grad()
            scaler.scale(loss_of(model, batch) * math.inf).backward()
            scaler.step(optimizer)
            scaler.update()

    with pytest.raises(CriticalFindingError, match="skips every step") as caught:
        loop()
    assert caught.value.finding.where == ()
    assert guard.steps == {"optimizer": 40}
    assert "step" not in vars(scaler)


def test_all_optimizers_are_let_go_of(tmp_path: Path) -> None:
    model = mlp()
    optimizers = {
        "a": torch.optim.SGD(model[0].parameters(), lr=0.01),
        "b": torch.optim.SGD(model[2:].parameters(), lr=0.01),
    }
    guard = Guard(model, optimizers, every_n_steps=4, strict=True, run_dir=tmp_path)

    def loop() -> None:
        for step, batch in enumerate(batches(10), start=1):
            (loss_of(model, batch) * (math.nan if step == 3 else 1.0)).backward()
            optimizers["a"].step()
            optimizers["b"].step()

    with pytest.raises(CriticalFindingError, match="non_finite"):
        loop()
    assert guard.steps == {"a": 4, "b": 3}
    assert [hooks(one) for one in optimizers.values()] == [0, 0]
    run = read(tmp_path)
    assert run.history["b/grad_norm/total"].steps.tolist() == [1, 2, 3]  # what the other one had measured, too
    assert {f.optimizer for f in run.findings} == {"a", "b"}


def test_lbfgs_and_its_closure_are_stopped() -> None:
    model = mlp()
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)
    Guard(model, optimizer, every_n_steps=2, strict=True)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = loss_of(model, batches(1)[0]) * math.nan
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(CriticalFindingError, match="non_finite"):
        optimizer.step(closure)


@pytest.mark.parametrize("strict", [False, True])
def test_a_warning_or_a_finding_that_is_over_stops_nothing(strict: bool) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)  # found as update_too_small, a warning
    guard = Guard(model, optimizer, every_n_steps=40, strict=strict)
    with guard:
        for _ in range(4):
            go(model, optimizer, 40, bad_at=0)
    assert guard.diagnose()


def test_a_critical_finding_that_is_over_at_its_flush_stops_nothing() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Guard(model, optimizer, every_n_steps=40, strict=True) as guard:
        for step, batch in enumerate(batches(40), start=1):
            optimizer.zero_grad()
            loss_of(model, batch).backward()
            if step == 2:
                model[0].weight.grad.fill_(math.nan)
            before = [p.detach().clone() for p in model.parameters()]
            optimizer.step()
            with torch.no_grad():
                for p, b in zip(model.parameters(), before, strict=True):
                    p.copy_(b if step == 2 else p)  # the loop itself takes the bad step back
    (finding,) = guard.diagnose()
    assert (finding.severity, finding.active) == (Severity.CRITICAL, False)


def test_a_resumed_run_is_not_stopped_by_what_had_stopped_the_other() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, every_n_steps=4, strict=True)
    with pytest.raises(CriticalFindingError):
        go(model, optimizer, 8, bad_at=2)
    state = guard.state_dict()
    healthy = mlp()
    optimizer = torch.optim.SGD(healthy.parameters(), lr=0.01)
    other = Guard(healthy, optimizer, every_n_steps=4, strict=True)
    other.load_state_dict(state)
    go(healthy, optimizer, 8, bad_at=0)
    assert other.steps == {"optimizer": 12}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_both_processes_stop_where_one_does(tmp_path: Path) -> None:
    mp.spawn(strict_workers.of_one_rank, args=(2, str(tmp_path)), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for at, steps in ((0, 8), (1, 11)):
        assert first[at][:3] == (True, steps, None)
        assert "another process's batch" in first[at][3]
        assert second[at][:3] == (True, steps, "non_finite")
        assert (first[at][4], second[at][4]) == (True, True)
        assert first[at][5] == second[at][5] == 0  # rank 0 has found nothing, and rank 1 tells nobody
    assert read(tmp_path / "run5").manifest.status == "failed: CriticalFindingError"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"strict": 1}, "strict to be True or False, got 1"),
        ({"strict": None}, "strict to be True or False, got None"),
        ({"notify": 3}, "notify to be a function that takes a finding, or a list of such, got 3"),
        ({"notify": [print, "mail"]}, r"list of such, got \[.*'mail'\]"),
        ({"notify": "mail"}, "got 'mail'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], words: str) -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TypeError, match=words):
        Guard(model, optimizer, **arguments)
    assert hooks(optimizer) == 0


def test_a_resumed_run_is_stopped_by_what_still_holds() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    guard = Guard(model, optimizer, every_n_steps=4)
    go(model, optimizer, 6, bad_at=2)  # NaN weights from then on
    state = guard.state_dict()
    guard.close()
    other = Guard(model, optimizer, every_n_steps=4, strict=True)
    other.load_state_dict(state)
    with pytest.raises(CriticalFindingError, match="non_finite"):
        go(model, optimizer, 8, bad_at=0)
    assert other.steps == {"optimizer": 8}
