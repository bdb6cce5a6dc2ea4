"""README and docs do what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from gradguard import Guard
from gradguard.clip import Ema, NormClip, ZClip
from gradguard.detect import default_detectors
from gradguard.detect.finding import Symptom
from gradguard.lightning import GradGuard
from gradguard.recover import Skip
from tests.guard.loops import batches, loss_of, mlp
from tests.guard.recurrent import Reader, trained
from tests.lightning.loops import Plain, loader, trainer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 8
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.count(f"Verdict: healthy, by {len(default_detectors())} rules.") == 2
    assert "finished {'gradguard'" in out
    assert "remarks=('the forget gate begins half closed: forget_gate_',)" in out
    assert "relu: kaiming, gain 1.414" in out
    assert "torch.Size([4, 64, 16]) torch.Size([0, 3, 32])" in out
    assert re.search(r"tensor\(\[51\]\) tensor\(0\..*\nTrue", out)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_symptoms_is_that_of_the_default_detectors() -> None:
    section = README.split("What is looked for today")[1].split("## ")[0]
    named = {name for name in re.findall(r"`(\w+)`", section) if name in set(Symptom)}
    assert named == {symptom.value for symptom in Symptom}
    assert len(default_detectors(through_time=True)) == len(named)


def test_the_table_of_series_is_that_of_the_history() -> None:
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    guard = Guard(model, optimizer, clip=ZClip(baseline=Ema(warmup=5), reanchor=5), recover=Skip())
    for step in range(30):
        loss = loss_of(model, batches(1)[0]) * (torch.nan if step == 8 else 10 if step > 15 else 1)
        optimizer.zero_grad()
        guard.record_loss(loss)
        loss.backward()
        optimizer.step()
    section = README.split("## What is measured")[1].split("## ")[0]
    rows = set(re.findall(r"^\| `([\w/<>]+)` \|", section, re.MULTILINE))
    kinds = {re.sub(r"/\d\.\w+$", "/<parameter>", key) for key in guard.history}
    kinds = {re.sub(r"^activation/\d+/", "activation/<layer>/", key) for key in kinds}
    assert kinds == {row for row in rows if "/" in row or row in ("loss", "skipped", "learning_rate")}


def test_the_table_of_what_is_seen_through_time_is_that_of_the_history() -> None:
    text = (ROOT / "docs" / "through_time.md").read_text()
    rows = set(re.findall(r"^\| `((?:through_time|memory|gates)/[^`]+)` \|", text, re.MULTILINE))
    history = trained(Reader(), 1, through_time=True).history
    seen = {name for name in history if name.startswith(("through_time/", "memory/", "gates/"))}
    letters, lags = (r">/[ifgo]/", ">/<gate>/"), (r"^(memory.*)/\d+$", r"\1/<lag>")
    for pattern, place in ((r"rnn\.l0", "<layer>"), letters, lags, (r"bin_\d+$", "bin_<k>")):
        seen = {re.sub(pattern, place, name) for name in seen}
    assert seen == rows


def test_the_table_of_what_is_logged_is_what_a_trainer_logs(tmp_path: Path) -> None:
    section = README.split("### What is logged")[1].split("## ")[0]
    first_column = "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`(gradguard/[^`]+)`", first_column))

    class OneBad(Plain):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.loss(batch) * (torch.nan if batch_idx == 20 else 1)

    module = OneBad()
    pairs = [m for kind in [nn.Sigmoid] * 7 + [nn.ReLU] for m in (nn.Linear(6, 6), kind())]
    module.net = nn.Sequential(*pairs, nn.Linear(6, 1))
    callback = GradGuard(histograms=True, prog_bar=True, clip=NormClip(1.0), recover=Skip(), report=True)
    fit = trainer([callback], max_epochs=1, logger=TensorBoardLogger(tmp_path), log_every_n_steps=50)
    fit.fit(module, loader(60))
    tags = EventAccumulator(fit.log_dir).Reload().Tags()
    logged = {
        tag.removesuffix("/text_summary")
        for kind in ("scalars", "histograms", "tensors", "images")
        for tag in tags[kind]
    }
    logged |= {key for key in fit.progress_bar_metrics if key.startswith("gradguard/")}
    logged = {re.sub(r"activation/net\.\d+", "activation/<module>", key) for key in logged}
    logged = {re.sub(r"net\.\d+\.\w+", "<parameter>", key) for key in logged}
    logged = {re.sub(r"net\.\d+", "<module>", key) for key in logged}
    logged = {re.sub(r"finding/\w+", "finding/<symptom>", key) for key in logged}
    assert {key for key in logged if key.startswith("gradguard/")} == documented - {
        "gradguard/report"
    }  # no images' kind


def test_the_commands_are_those_of_run_py() -> None:
    run = (ROOT / "run.py").read_text()
    for job in re.findall(r"python3 run\.py (\w+)", README):
        assert f'job == "{job}"' in run
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("python3 run.py test")
