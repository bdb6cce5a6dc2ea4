"""The ``gradguard`` command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import gradguard


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job of the command line; give its exit status."""
    parser = argparse.ArgumentParser(prog="gradguard", description=gradguard.__doc__)
    parser.add_argument("--version", action="version", version=f"gradguard {gradguard.__version__}")
    jobs = parser.add_subparsers(dest="job", required=True, metavar="JOB")
    demo = jobs.add_parser(
        "demo", help="train a network that cannot learn, on real data; find out why; train it again, cured"
    )
    demo.add_argument("--epochs", type=_positive, default=20, help="passes over the data, each time (default: 20)")
    demo.add_argument("--seed", type=int, default=0, help="of the weights and of the order of the data (default: 0)")
    demo.add_argument("--logs", default="gradguard_demo", help="folder for logs and records (default: gradguard_demo)")
    report = jobs.add_parser("report", help="write a run, or two to compare, as one page that opens offline")
    report.add_argument("run", help="folder of the run record; a folder above it, if there is one record below it")
    report.add_argument("other", nargs="?", help="a second one, to compare: after a remedy")
    report.add_argument("-o", "--out", default="report.html", help="the file to write (default: report.html)")
    chosen = parser.parse_args(arguments)

    if chosen.job == "report":
        return _report([chosen.run, *([chosen.other] if chosen.other else [])], chosen.out)

    from gradguard.demo import demo as run_demo  # here, so that --help and --version need not load Lightning

    return run_demo(epochs=chosen.epochs, seed=chosen.seed, logs=chosen.logs)


def _report(runs: Sequence[str], out: str) -> int:
    from gradguard.errors import MissingPackageError, RecordError
    from gradguard.record import find_record
    from gradguard.report import write_page

    try:
        path = write_page([find_record(run) for run in runs], out)
    except (RecordError, MissingPackageError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    print(path)
    return 0


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a number >= 1, got {text}")
    return int(text)
