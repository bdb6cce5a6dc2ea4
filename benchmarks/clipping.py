"""Clippers beside their peers: known failures, speed, and training in which gradients go wrong.

    python3 run.py bench clipping [--only failures|speed|training] [--folder FOLDER] [--rounds 40] [--seeds 10]

The peers are installed with pip, pinned and without what they depend on, into FOLDER; a temporary one by default.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import clipping_failures, clipping_peers, clipping_speed, clipping_training
from benchmarks.timing import machine


def main() -> None:
    parser = argparse.ArgumentParser(prog="clipping", description=__doc__)
    parser.add_argument("--only", choices=["failures", "speed", "training"], help="one part of it")
    parser.add_argument("--folder", type=Path, help="of the peers; they are kept then")
    parser.add_argument("--rounds", type=int, default=40, help="of the timing")
    parser.add_argument("--seeds", type=int, default=10, help="of the training")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clipping_peers.ensure_packages((chosen.folder or Path(temporary)).resolve())
        print(f"# Clipping\n\n{machine()}; {', '.join(clipping_peers.PACKAGES)}")
        if chosen.only in (None, "failures"):
            clipping_failures.run()
        if chosen.only in (None, "speed"):
            clipping_speed.run(chosen.rounds)
        if chosen.only in (None, "training"):
            clipping_training.run(chosen.seeds)


if __name__ == "__main__":
    sys.exit(main())
