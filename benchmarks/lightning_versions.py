"""The callbacks' tests under several versions of Lightning, each in an environment of its own.

    python3 run.py bench lightning_versions [--versions 2.4.0 2.6.6] [--folder FOLDER] [further arguments for pytest]

An environment that is in FOLDER already is used as it is; without ``--folder`` all are temporary.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import venv
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from benchmarks.timing import machine, table

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("2.4.0", "2.5.6", "2.6.6")
TESTS = ("tests/lightning", "tests/test_metrics.py")


def constraints(version: str) -> str:
    """Give the tested set with another Lightning in it."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.sub(r"(?m)^((?:pytorch-)?lightning)==.*$", rf"\1=={version}", text)


def test_packages() -> list[str]:
    """Give what the project and its extra ``test`` require, as pyproject.toml says."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    lists = (
        re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M),
        re.search(r"^test = \[(.*?)^\]", text, re.S | re.M),
    )
    return [package for found in lists if found for package in re.findall(r'^\s*"(.+)"', found[1], re.M)]


def ensure_environment(version: str, folder: Path) -> Path:
    """Make an environment with this Lightning, unless there is one; give its interpreter."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "gradguard.stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == constraints(version):
        return python
    print(f"Setting up an environment with Lightning {version} ...", file=sys.stderr, flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pinned = folder / "constraints.txt"
    pinned.write_text(constraints(version), encoding="utf-8")
    install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", str(pinned), *test_packages()], check=True)
    subprocess.run([*install, "--no-deps", "-e", str(ROOT)], check=True)
    stamp.write_text(constraints(version), encoding="utf-8")
    return python


def run_tests(python: Path, arguments: list[str], report: Path) -> list[str]:
    """Run the tests; give how many passed, failed, failed as expected (xfail) and were skipped, and the seconds."""
    command = [str(python), "-m", "pytest", *TESTS, "-q", "-p", "no:cacheprovider", f"--junit-xml={report}", *arguments]
    subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    tests, failures, errors, skipped = (int(suite.get(key, 0)) for key in ("tests", "failures", "errors", "skipped"))
    expected = len(suite.findall(".//skipped[@type='pytest.xfail']"))
    counts = (tests - failures - errors - skipped, failures + errors, expected, skipped - expected)
    return [*map(str, counts), f"{float(suite.get('time', 0)):.0f}"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="lightning_versions", description=__doc__)
    parser.add_argument("--versions", nargs="+", default=VERSIONS)
    parser.add_argument("--folder", type=Path, help="of the environments; they are kept then")
    options, arguments = parser.parse_known_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for version in options.versions:
            python = ensure_environment(version, (options.folder or Path(temporary)).resolve() / version)
            rows.append([version, *run_tests(python, arguments, Path(temporary) / f"{version}.xml")])
    print(f"# Lightning versions\n\n{machine()}; `pytest {' '.join([*TESTS, *arguments])}`\n")
    print(table(["Lightning", "passed", "failed", "failed as expected", "skipped", "seconds"], rows))
    return int(any(row[2] != "0" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
