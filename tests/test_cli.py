"""The command line, as a user types it."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import gradguard
from gradguard import demo
from gradguard.cli import main


def test_the_demo_finds_the_sick_network_out_and_the_cured_one_healthy(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "gradguard", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sick, _, cured = done.stdout.partition("Cure, ")
    assert "Epoch 19: 100%" in sick, "a progress bar"
    assert "gradguard/norm=" in sick
    assert "[critical] vanishing_depth in network.layer1, network.layer2" in sick
    assert "[critical] vanishing_depth" in done.stderr, "said at once, too"
    assert "mean size of each layer's weight gradients" in " ".join(sick.split())
    assert "Verdict: healthy, by 14 rules." in cured
    accuracy = [float(line.split("%")[0].split()[-1]) for line in done.stdout.splitlines() if "test accuracy" in line]
    assert accuracy[0] < 20
    assert accuracy[1] > 90
    (logs,) = re.findall(r"tensorboard --logdir (\S+)", done.stdout)
    curves = EventAccumulator(str(tmp_path / logs / "sick" / "version_0")).Reload()
    assert len(curves.Scalars("gradguard/grad_norm/network.layer1")) == 16  # steps 1 to 4, 8, 16, 32 and every 50th
    assert "vanishing_depth" in str(curves.Tensors("gradguard/finding/vanishing_depth/text_summary"))
    (page,) = re.findall(r"as one page: +(\S+)", done.stdout)
    text = Path(page).read_text()
    assert "The weights start badly" in text
    assert "Healthy" in text
    (line,) = re.findall(r"gradguard\.record\.read\(.*\)\.history", done.stdout)
    code = f"import gradguard.record; print(len({line}['grad_norm/total'].steps))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert int(shown.stdout) == 460


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_demo_does_not_hang_on_one_seed(seed: int, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["demo", "--seed", str(seed), "--logs", str(tmp_path)]) == 0
    assert "healthy" in capsys.readouterr().out


def test_a_demo_that_could_not_show_it_says_so_by_its_exit_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(demo, "GradGuard", partial(demo.GradGuard, detectors=[]))
    assert main(["demo", "--epochs", "1", "--logs", str(tmp_path)]) == 1  # nobody looks for anything
    assert "nothing found" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["sklearn.datasets", "tensorboard"])
def test_what_the_demo_lacks_is_named_with_the_mend(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit, match=rf"needs {missing}: pip install 'gradguard\[demo\]'"):
        main(["demo"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, gradguard.__version__),
        (["--help"], 0, "demo"),
        ([], 2, "required: JOB"),
        (["dance"], 2, "invalid choice: 'dance'"),
        (["demo", "--epochs", "0"], 2, "needs a number >= 1, got 0"),
        (["demo", "--epochs", "x"], 2, "needs a number >= 1, got x"),
    ],
)
def test_help_and_mistakes(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    captured = capsys.readouterr()
    assert says in captured.out + captured.err
