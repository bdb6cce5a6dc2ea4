"""W&B tells of critical findings, once each; its offline file is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradguard.lightning import GradGuard
from tests.lightning import readers
from tests.lightning.loggers import wandb_logger
from tests.lightning.loops import Plain, Two, loader, trainer
from tests.lightning.test_dashboards import Sick

pytestmark = [
    pytest.mark.wandb,
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
]


class ComesAndGoes(Plain):
    """The gradient is NaN, then finite, and NaN again; the weights stay finite."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss(batch) * (torch.nan if batch_idx in (7, 8, 47, 48) else 1.0)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any) -> None:
        optimizer.step(optimizer_closure)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.nan_to_num_(0.1)


def alerts(
    module: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, batches: int = 60
) -> tuple[list[tuple[str, str, str]], Any]:
    logger, callback = wandb_logger(folder, monkeypatch), GradGuard(every_n_steps=5, summary=False)
    trainer([callback], logger=logger, default_root_dir=folder, max_epochs=1).fit(module, loader(batches))
    return readers.wandb_alerts(readers.finish_wandb(logger)), callback.guard


def test_a_critical_finding_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    found, guard = alerts(ComesAndGoes(), tmp_path, monkeypatch)
    raised = [e.finding for e in guard.events if e.finding.symptom.value == "non_finite" and e.finding.active]
    assert [(title, level) for title, _, level in found if "non_finite" in title] == [
        ("GradGuard: non_finite", "ERROR")
    ]
    assert len(raised) == 2
    assert next(text for title, text, _ in found if "non_finite" in title) == str(raised[0])
    assert capfd.readouterr().out == ""  # offline it keeps quiet


def test_each_optimizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Bad(Two):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            if self.trainer.fit_loop.total_batch_idx == 7:
                for parameter in self.critic.parameters():
                    if parameter.grad is not None:
                        parameter.grad.fill_(torch.nan)

    found, _ = alerts(Bad(), tmp_path, monkeypatch)
    assert "GradGuard: critic/non_finite" in [title for title, _, _ in found]


def test_what_is_not_critical_is_told_to_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, guard = alerts(Plain(lr=0.0), tmp_path, monkeypatch, batches=240)
    assert [finding.severity.value for finding in guard.diagnose()] == ["warning"]
    assert found == []


def test_each_critical_symptom_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, guard = alerts(Sick(), tmp_path, monkeypatch)
    critical = {e.finding.symptom.value for e in guard.events if e.finding.severity.value == "critical"}
    assert "vanishing_depth" in critical
    assert sorted(title for title, _, _ in found) == sorted(f"GradGuard: {symptom}" for symptom in critical)
