"""README and docs do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gradguard import Guard
from gradguard.detect import default_detectors
from gradguard.detect.finding import Symptom
from tests.guard.loops import batches, loss_of, mlp

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_every_python_block_runs(capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})
    assert "Verdict: healthy, by 7 rules." in capsys.readouterr().out


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_table_of_symptoms_is_that_of_the_default_detectors() -> None:
    section = README.split("What is looked for today")[1].split("## ")[0]
    named = {name for name in re.findall(r"`(\w+)`", section) if name in set(Symptom)}
    source = "".join(
        (ROOT / "src/gradguard/detect").joinpath(f).read_text()
        for f in ("depth.py", "non_finite.py", "no_gradient.py", "updates.py", "clipped_upstream.py")
    )
    assert named == {symptom.value for symptom in Symptom if f"Symptom.{symptom.name}" in source}
    assert len(default_detectors()) == len(named)


def test_the_table_of_series_is_that_of_the_history() -> None:
    model = mlp()
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    guard = Guard(model, optimizer)
    loss = loss_of(model, batches(1)[0])
    guard.record_loss(loss)
    loss.backward()
    optimizer.step()
    guard.diagnose()
    rows = set(re.findall(r"^\| `([\w/<>]+)` \|", README, re.MULTILINE)) - {s.value for s in Symptom}
    kinds = {re.sub(r"/\d\.\w+$", "/<parameter>", key) for key in guard.history}
    assert kinds == {row for row in rows if "/" in row or row == "loss"}


def test_the_commands_are_those_of_run_py() -> None:
    run = (ROOT / "run.py").read_text()
    for job in re.findall(r"python3 run\.py (\w+)", README):
        assert f'job == "{job}"' in run
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("python3 run.py test")
