"""The same rules on tensors, as on any device but the CPU, equal those on floats: forced here on CPU tensors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from gradguard.clip import (
    AbstractRescaler,
    AdaGC,
    AutoClip,
    Ema,
    GradientStabilizer,
    MedianMad,
    NormBand,
    NormClip,
    PerModule,
    ToMean,
    ToThreshold,
    ZClip,
)
from gradguard.clip.state import on_device
from gradguard.functional import number
from tests.clip.steps import Run, reported, spiky

CLIPPERS: dict[str, Callable[[], AbstractRescaler]] = {
    "norm": lambda: NormClip(0.7),
    "band": lambda: NormBand(0.8, 1.2),
    "zclip": lambda: ZClip(max_norm=2.0, clip_factor=0.9),
    "zclip, paper": lambda: ZClip(sigma_floor=0, reanchor=None, target=ToThreshold()),
    "zclip, to the mean": lambda: ZClip(learn_from_spikes=False, target=ToMean(), baseline=Ema(0.9, warmup=5)),
    "median and mad": lambda: ZClip(baseline=MedianMad(warmup=5)),
    "autoclip": lambda: AutoClip(30.0, window=120),
    "adagc": lambda: AdaGC(warmup=20),
    "stabilizer": GradientStabilizer,
    "stabilizer, paper": lambda: GradientStabilizer(bias_correction=False, reanchor=None),
    "of modules": lambda: PerModule({"first": ZClip(baseline=Ema(warmup=5)), "last": GradientStabilizer()}),
}


@pytest.fixture
def on_tensors(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Let every module take a CPU tensor for one that must not be read."""
    on_floats = number.scalar

    def force() -> None:
        for name, module in list(sys.modules.items()):
            if name.startswith("gradguard.") and getattr(module, "scalar", None) is on_floats:
                monkeypatch.setattr(module, "scalar", number.precise)

    return force


def eventful(seed: int) -> list[list[Any]]:
    """Spikes, gradients that are zero, missing, not finite or huge, and a lasting change of level."""
    run: list[list[Any]] = list(spiky(170, seed))
    run[:30] = [[g.clip(-0.5, 0.5) for g in grads] for grads in run[:30]]
    run[10][0] = run[40][0] * 0
    run[11] = [g * 0 for g in run[11]]
    run[12] = [None] * 3
    run[13][1] = None
    run[30][2] = run[30][2] * float("nan")
    run[31][0] = run[31][0] * float("inf")
    run[50] = [g * 1e200 for g in run[50]]
    run[90:] = [[30 * g for g in grads] for grads in run[90:]]
    return run


def trace(clipper: AbstractRescaler, seed: int) -> tuple[list[Tensor], list[Tensor], list[float], Run]:
    run, grads, reports, changes = Run(clipper), [], [], []
    for step in eventful(seed):
        reports.append(reported(run.step(step)))
        grads.append(torch.cat([g.flatten() for g in run.grads]) if run.grads else torch.zeros(0))
        changes.append(run.changes)
    return grads, reports, changes, run


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", CLIPPERS)
def test_tensors_and_floats_clip_alike_over_a_run(kind: str, seed: int, on_tensors: Callable[[], Any]) -> None:
    grads, reports, changes, _ = trace(CLIPPERS[kind](), seed)
    on_tensors()
    grads_there, reports_there, changes_there, run = trace(CLIPPERS[kind](), seed)
    assert all(isinstance(x, Tensor) for x in leaves(run.state)), "not all of it ran on tensors"
    assert changes == changes_there
    for step, (here, there) in enumerate(zip(grads, grads_there, strict=True)):
        torch.testing.assert_close(there, here, rtol=1e-12, atol=0, equal_nan=True, msg=lambda m, s=step: f"{s}: {m}")
    for step, (here, there) in enumerate(zip(reports, reports_there, strict=True)):
        torch.testing.assert_close(
            there.double(), here.double(), rtol=1e-12, atol=0, equal_nan=True, msg=lambda m, s=step: f"{s}: {m}"
        )


def test_the_run_has_something_to_tell() -> None:
    """Every adaptive clipper clips in it, and notices the change of level."""
    for kind in ("zclip", "median and mad", "autoclip", "adagc", "stabilizer", "of modules"):
        grads, _, changes, _ = trace(CLIPPERS[kind](), 0)
        raw = [torch.cat([torch.tensor(g).flatten() for g in step]) for step in eventful(0)[60:]]
        assert sum(not torch.equal(a, b) for a, b in zip(grads[60:], raw, strict=True)) > 5, kind
        assert changes[-1] > 0, kind


@pytest.mark.parametrize("to_tensors", [True, False], ids=["floats to tensors", "tensors to floats"])
@pytest.mark.parametrize("at", [3, 60])
@pytest.mark.parametrize("kind", CLIPPERS)
def test_a_run_resumes_on_the_other_path(
    kind: str, at: int, to_tensors: bool, on_tensors: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one does that was saved on a CPU and is loaded on a device, or the other way round."""
    expected, _, _, _ = trace(CLIPPERS[kind](), 0)
    first, second = Run(CLIPPERS[kind]()), Run(CLIPPERS[kind]())
    if not to_tensors:
        on_tensors()
    first.clipper.attach(first.binding)
    for grads in eventful(0)[:at]:
        first.give(grads)
        first.clipper.decide(first.measured()).apply_()
    if to_tensors:
        on_tensors()
    else:
        monkeypatch.undo()
    second.clipper.attach(second.binding)
    second.clipper.load_state_dict(first.clipper.state_dict())
    for step, grads in enumerate(eventful(0)[at:], start=at):
        second.give(grads)
        second.clipper.decide(second.measured()).apply_()
        found = torch.cat([g.flatten() for g in second.grads]) if second.grads else torch.zeros(0)
        torch.testing.assert_close(found, expected[step], rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("kind", sorted(set(CLIPPERS) - {"of modules"}))
def test_a_state_follows_the_gradients_to_another_device_and_back(
    kind: str, on_tensors: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``cpu:0`` is not equal to ``cpu``: a second device that can be read."""
    expected, _, _, _ = trace(CLIPPERS[kind](), 0)
    run = Run(CLIPPERS[kind]())
    there = on_device(run.state, torch.device("meta"))
    assert all(x.device.type == "meta" for x in leaves(there))
    assert all(x.dtype in (torch.float64, torch.int64) for x in leaves(there))
    on_tensors()
    run = Run(CLIPPERS[kind]())
    for grads in eventful(0)[:60]:
        run.step(grads)
    monkeypatch.undo()
    run.state = on_device(run.state, torch.device("cpu:0"))
    for step, grads in enumerate(eventful(0)[60:], start=60):
        run.step(grads)
        torch.testing.assert_close(torch.cat([g.flatten() for g in run.grads]), expected[step], rtol=1e-12, atol=0)


def leaves(state: Any) -> Iterator[Any]:
    """Give all numbers of a state."""
    for part in state.values() if isinstance(state, dict) else state:
        if isinstance(part, tuple) and (hasattr(part, "_fields") or isinstance(state, dict)):
            yield from leaves(part)
        elif isinstance(part, float | Tensor):
            yield part
