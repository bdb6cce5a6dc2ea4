"""The command line, as a user types it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gradguard
from gradguard.cli import main


def test_the_demo_finds_the_sick_network_out_and_the_cured_one_healthy() -> None:
    done = subprocess.run([sys.executable, "-m", "gradguard", "demo"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    sick, _, cured = done.stdout.partition("Cure, ")
    assert "460/460" in sick, "a progress bar"
    assert "[critical] vanishing_depth in layer1, layer2" in sick
    assert "mean size of each layer's weight gradients" in " ".join(sick.split())
    assert "nothing: the gradients are healthy." in cured
    accuracy = [float(line.split("%")[0].split()[-1]) for line in done.stdout.splitlines() if "test accuracy" in line]
    assert accuracy[0] < 20
    assert accuracy[1] > 90
    assert cured.rstrip().splitlines()[-1].endswith("healthy")


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_demo_does_not_hang_on_one_seed(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--seed", str(seed)]) == 0
    assert "healthy" in capsys.readouterr().out


def test_a_demo_that_could_not_show_it_says_so_by_its_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--epochs", "1"]) == 1  # 23 steps: too few for a verdict
    assert "nothing found" in capsys.readouterr().out


def test_without_scikit_learn_the_mend_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(SystemExit, match=r"needs scikit-learn: pip install 'gradguard\[demo\]'"):
        main(["demo"])


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--version"], 0, gradguard.__version__),
        (["--help"], 0, "demo"),
        ([], 2, "required: JOB"),
        (["dance"], 2, "invalid choice: 'dance'"),
        (["demo", "--epochs", "0"], 2, "needs a number >= 1, got 0"),
    ],
)
def test_help_and_mistakes(arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == code
    captured = capsys.readouterr()
    assert says in captured.out + captured.err
