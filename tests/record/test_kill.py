"""SIGKILL at any moment: the record reads, and the run that goes on from its checkpoint ends as if nothing had been."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from gradguard import Guard
from gradguard.record import Run, RunWriter, read, writer
from tests.guard.loops import loss_of, mlp
from tests.record.records import bits, same

STEPS, EVERY, SAVES_AT = 600, 10, 37
KILLS = 20


def run(home: Path, *, saves: bool = True, tells: Connection | None = None) -> tuple[Guard, nn.Module]:
    """Train on data that depend on the step, from the checkpoint on where there is one."""
    torch.manual_seed(0)
    model, late = mlp(), nn.Parameter(torch.ones(3))
    model.register_parameter("late", late)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    guard = Guard(model, optimizer, every_n_steps=EVERY, run_dir=home / "run")
    begin, checkpoint = 0, home / "last.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        begin = state["step"]
        for name, part in (("model", model), ("optimizer", optimizer), ("guard", guard)):
            part.load_state_dict(state[name])
    for step in range(begin + 1, STEPS + 1):
        generator = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        loss = loss_of(model, (torch.randn(6, 4, generator=generator), torch.randn(6, 1, generator=generator)))
        if step > 250:  # until then it has no gradient
            loss = loss + late.square().sum() / 100
        guard.record_loss(loss)
        loss.backward()
        if 300 < step < 450:
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        if tells is not None:
            tells.send(step)
        if saves and step % SAVES_AT == 0:
            parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "guard": guard.state_dict()}
            torch.save({"step": step, **parts}, home / "new.pt")
            (home / "new.pt").replace(checkpoint)
    guard.close()
    return guard, model


def child(home: Path, tells: Connection) -> None:
    plain = RunWriter._start_anew

    def anew(self: Any) -> None:
        plain(self)
        self.snapshot = 0  # each flush makes a new snapshot: much of the time goes there

    RunWriter._start_anew, writer.LEAST = anew, 1  # type: ignore[method-assign]
    torch.set_num_threads(1)
    _, model = run(home, tells=tells)
    torch.save(model.state_dict(), home / "weights.pt")


def killed_at(home: Path, step: int, delay: float) -> int:
    """Train in a process of its own, kill it a little after a step, and give the last step that it told of."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(home, theirs))
    process.start()
    theirs.close()
    told = 0
    try:
        while told < step:
            told = ours.recv()
        time.sleep(delay)
        os.kill(process.pid or 0, signal.SIGKILL)
        while True:
            told = ours.recv()
    except EOFError:
        process.join()
    return told


def check(found: Run, whole: Run, at_least: int, at_most: int) -> None:
    """What is there is the beginning of the whole run, down to the last flush."""
    steps = found.history["grad_norm/total"].steps.tolist()
    assert at_least <= steps[-1] <= at_most
    assert all("torn line" in problem for problem in found.problems)
    for key, points in found.history.items():
        for name, values in points._asdict().items():
            assert torch.equal(bits(values), bits(getattr(whole.history[key], name)[: len(values)])), f"{name} of {key}"
    assert steps == list(range(1, steps[-1] + 1))
    assert list(found.events) == [event for event in whole.events if event.step <= steps[-1]]
    assert found.layouts == whole.layouts


@pytest.mark.slow
def test_a_run_that_is_killed_twenty_times_ends_as_one_that_is_not(tmp_path: Path) -> None:
    for name in ("whole", "unsaved", "killed"):
        (tmp_path / name).mkdir()
    guard, model = run(tmp_path / "whole")
    whole, home, chance = read(tmp_path / "whole" / "run"), tmp_path / "killed", random.Random(0)
    assert len(whole.events) >= 4, "something was meant to happen"
    same(run(tmp_path / "unsaved", saves=False)[0].history, whole.history)
    inside, lost = 0, 0
    targets = sorted(chance.sample(range(5, STEPS - 20), KILLS - 4)) + [0] * 4  # the last ones while it resumes
    for target in targets:
        before = torch.load(home / "last.pt", weights_only=True)["step"] if (home / "last.pt").exists() else 0
        told = killed_at(home, target, chance.uniform(0, 0.03))
        found = read(home / "run")
        named = {"manifest.json", *found.manifest.segments}
        inside += {path.name for path in (home / "run").iterdir()} != named
        check(found, whole, max(before, told - told % EVERY), STEPS)
        lost = max(lost, told - int(found.history["loss"].steps[-1]))
        assert found.manifest.status == "running"
    print(f"{inside} of {KILLS} kills fell into a compaction; at most {lost} steps were lost")
    assert killed_at(home, STEPS + 1, 0) == STEPS
    found = read(home / "run")
    same(found.history, whole.history)
    assert (found.events, found.findings, found.layouts) == (whole.events, whole.findings, whole.layouts)
    assert (found.problems, found.manifest.status) == ((), "finished")
    assert found.findings == tuple(guard.diagnose())
    weights = torch.load(home / "weights.pt", weights_only=True)
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    assert {path.name for path in (home / "run").iterdir()} == {"manifest.json", *found.manifest.segments}
