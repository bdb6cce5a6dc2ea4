#!/usr/bin/env python3
"""Set up a checkout and run one of its jobs, on a machine with nothing but Python.

python3 run.py demo [...]    find vanishing gradients in a network that does not train, then cure it
python3 run.py test [...]    the whole test suite; further arguments go to pytest
python3 run.py check         lint, format and types
python3 run.py bench NAME    a script from benchmarks/

The first run makes ``.venv`` and installs the project into it with ``constraints.txt``; later runs start at once.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
EXTRAS = "demo,test"


def fingerprint() -> str:
    """Say in one line what the environment was made from: a change of it means a new environment."""
    digest = hashlib.sha256(sys.version.encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def ensure_environment() -> None:
    """Make ``.venv`` and install the project into it, unless that was done from the same files before."""
    stamp = VENV / "gradguard.stamp"
    wanted = fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print("Setting up .venv (once, a minute or two) ...", flush=True)
    if VENV.exists():
        shutil.rmtree(VENV)
    venv.create(VENV, with_pip=True)
    install = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-c", "constraints.txt", "-e", f".[{EXTRAS}]"], cwd=ROOT, check=True)
    stamp.write_text(wanted)


def commands(job: str, rest: list[str]) -> list[list[str]]:
    """Translate a job into the modules to run, each with its arguments."""
    if job == "demo":
        return [["gradguard", "demo", *rest]]
    if job == "test":
        return [["pytest", *(rest or ["-n", "auto", "--maxprocesses", "4"])]]
    if job == "check" and not rest:
        return [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]]
    if job == "bench" and rest:
        return [[f"benchmarks.{rest[0]}", *rest[1:]]]
    sys.exit(f"run.py does not know the job {' '.join([job, *rest])!r}.\n\n{__doc__}")


def main() -> int:
    """Run the job that the command line names."""
    if sys.version_info < (3, 10):
        sys.exit(f"GradGuard needs Python 3.10 or newer, this is {sys.version.split()[0]}.")
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if len(sys.argv) > 1 else 2
    jobs = commands(sys.argv[1], sys.argv[2:])
    try:
        ensure_environment()
    except subprocess.CalledProcessError as error:
        return int(error.returncode)
    for arguments in jobs:
        code = subprocess.run([str(PYTHON), "-m", *arguments], cwd=ROOT, check=False).returncode
        if code:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
