"""Clippers beside their peers: known failures, speed, and training where gradients go wrong.

    python3 run.py bench clipping [--only failures|speed|training] [--folder FOLDER] [--rounds 40] [--seeds 10]

The peers are installed with pip, pinned and without what they depend on, into FOLDER; a temporary one by default.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import clipping_peers


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="clipping", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=["failures", "speed", "training"], help="one part of it")
    parser.add_argument("--folder", type=Path, help="of the peers; they are kept then")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        clipping_peers.ensure_packages((chosen.folder or Path(temporary)).resolve())
        from benchmarks import clipping_failures

        clipping_failures.run()


if __name__ == "__main__":
    sys.exit(main())
