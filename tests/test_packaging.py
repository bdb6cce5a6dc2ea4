"""What the metadata promises, and the one script that sets a checkout up."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text()


def table(name: str) -> dict[str, list[str]]:
    """Parse one table of lists (tomllib is there from Python 3.11 on only)."""
    body = re.search(rf"^\[{re.escape(name)}\]\n(.*?)^\[", PYPROJECT, re.DOTALL | re.MULTILINE).group(1)
    return {
        key: ast.literal_eval(value)
        for key, value in re.findall(r"^(\w+) = (\[.*?\])$", body, re.DOTALL | re.MULTILINE)
    }


def test_extras_and_dependency_groups_are_the_same() -> None:
    extras = table("project.optional-dependencies")
    assert set(extras) == {"tensorboard", "plot", "terminal", "fast", "demo", "test", "docs"}
    assert table("dependency-groups") == extras


def test_hard_dependencies_are_three() -> None:
    required = [r for r in importlib.metadata.requires("gradguard") if "extra ==" not in r]
    assert sorted(re.match(r"[\w-]+", r).group() for r in required) == ["pytorch-lightning", "torch", "torchmetrics"]
    lightning = next(r for r in required if r.startswith("pytorch-lightning"))
    assert "!=2.6.2" in lightning
    assert "!=2.6.3" in lightning


def test_every_pin_is_of_something_we_ask_for() -> None:
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    asked = {re.match(r"[\w-]+", r).group() for r in importlib.metadata.requires("gradguard")}
    assert pins <= asked


def test_the_type_marker_is_there() -> None:
    assert (ROOT / "src" / "gradguard" / "py.typed").exists()


def test_run_py_uses_the_standard_library_only_and_parses_on_an_old_python() -> None:
    tree = ast.parse((ROOT / "run.py").read_text(), feature_version=(3, 8))
    modules = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    modules |= {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert modules <= sys.stdlib_module_names


@pytest.mark.parametrize("arguments", [["dance"], ["check", "now"], ["bench"]])
def test_run_py_says_what_it_knows(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, ROOT / "run.py", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"does not know the job {' '.join(arguments)!r}" in done.stderr
    assert "run.py demo" in done.stderr
