"""The house as tests: which way imports go, which names are public, what a plain import loads."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gradguard

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "gradguard"
FLOORS = {
    "errors": 0,
    "names": 0,
    "arguments": 0,
    "gates": 0,
    "functional": 1,
    **dict.fromkeys(("init", "nn", "clip", "detect", "regularize"), 2),
    "probe": 3,
    "record": 4,
    **dict.fromkeys(("remedy", "recover", "pretrain"), 5),
    "report": 6,
    "guard": 7,
    "repair": 8,
    "metrics": 9,
    "integrations": 10,
    "lightning": 11,  # shows what it measures on the dashboards of integrations/
    **dict.fromkeys(("demo", "autoload"), 12),
    "cli": 13,
}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported_rooms(source: str) -> list[tuple[int, str]]:
    """Line and room of every import of this package, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative imports hide the floor"
            names = [f"{node.module}.{a.name}" if node.module == "gradguard" else str(node.module) for a in node.names]
        else:
            continue
        found += [(node.lineno, name.split(".")[1]) for name in names if name.startswith("gradguard.")]
    return found


def violations(file: str, own: str, source: str) -> list[str]:
    return [
        f"{file}:{line}: {own} (floor {FLOORS[own]}) imports {target} (floor {FLOORS[target]})"
        for line, target in imported_rooms(source)
        if target in FLOORS and target != own and FLOORS[target] >= FLOORS[own]
    ]


def test_every_file_imports_only_from_floors_below_or_its_own_room() -> None:
    files = [path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py"]
    assert len(files) > 20
    assert {room(path) for path in files} <= FLOORS.keys() | {"__main__"}
    found = [v for path in files if room(path) in FLOORS for v in violations(path.name, room(path), path.read_text())]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "from gradguard.guard import Guard",
        "def f():\n    import gradguard.record.history",
        "from gradguard import probe",
        "from gradguard.probe.updates import UpdateProbe",
    ],
)
def test_a_seeded_upward_import_is_caught(source: str) -> None:
    assert len(violations("x.py", "detect", source)) == 1


def test_public_names_are_exactly_these() -> None:
    """Growing this set is a decision that also edits CHANGELOG.md."""
    public = {
        alias.asname
        for node in ast.walk(ast.parse((SOURCE / "__init__.py").read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert public == {
        "ClosedGuardError",
        "CriticalFindingError",
        "Finding",
        "GradGuardError",
        "GradGuardWarning",
        "Guard",
        "RecordError",
        "Severity",
        "SkipBudgetError",
        "Symptom",
    }
    assert len(public) <= 20
    assert all(hasattr(gradguard, name) for name in public)


def test_plain_import_loads_torch_and_nothing_heavier_and_registers_no_operator() -> None:
    code = (
        "import sys, torch; before = set(sys.modules); import gradguard; new = set(sys.modules) - before;"
        "heavy = sorted({m.split('.')[0] for m in new} - {'gradguard'} - set(sys.stdlib_module_names));"
        "torch_new = sorted(m for m in new if m.startswith('torch'));"
        "assert heavy == [], heavy; assert torch_new == [], torch_new;"
        "assert not hasattr(torch.ops.gradguard, '_dir') or not torch.ops.gradguard._dir"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_source_files_stay_short() -> None:
    long = {p.name: n for p in SOURCE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 250}
    assert long == {}, "over 250 lines needs a reason"


def test_torch_is_the_tested_one() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert torch.__version__.split("+")[0] == pinned["torch"]
