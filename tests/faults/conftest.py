"""Tiny programs in place of the corpus."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from benchmarks.faults.data import digits
from benchmarks.faults.loops import supervised
from benchmarks.faults.program import Loop, Program
from gradguard.detect import Symptom


def lively(lr: float) -> Loop:
    """Draws random numbers, also where it is scored, and keeps statistics in its layers."""
    hidden = [nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1), nn.BatchNorm1d(32)]
    hidden[-1].eval()  # scoring puts all of a model back into training
    model = nn.Sequential(*hidden, nn.Linear(32, 10))
    return supervised(model, digits(), lr, predict=lambda model, x: model(x) + 1e-6 * torch.rand(()))


def deep(lr: float) -> Loop:
    """Its gradient vanishes."""
    hidden = [m for _ in range(12) for m in (nn.Linear(32, 32), nn.Sigmoid())]
    return supervised(nn.Sequential(nn.Linear(64, 32), *hidden, nn.Linear(32, 10)), digits(), lr, optimizer="sgd")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Program]:
    found = {
        "tiny-lively": Program("tiny-lively", partial(lively), (1e-2,), steps=120, family="tiny"),
        "tiny-deep": Program("tiny-deep", partial(deep), (1e-2,), Symptom.VANISHING_DEPTH, "tiny-lively", steps=120),
    }
    for module in ("benchmarks.faults.corpus", "benchmarks.faults.recording", "benchmarks.diagnosis"):
        monkeypatch.setattr(f"{module}.corpus", lambda: found)
    return found
