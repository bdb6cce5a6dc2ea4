"""The ``gradguard`` command."""

from __future__ import annotations

import argparse
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
    chosen = parser.parse_args(arguments)

    from gradguard.demo import demo as run_demo  # here, so that --help and --version need not load Lightning

    return run_demo(epochs=chosen.epochs, seed=chosen.seed, logs=chosen.logs)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"needs a number >= 1, got {text}")
    return int(text)
