"""What ``import gradguard`` adds to ``import torch``: fresh processes, the goal is 50 ms."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.timing import machine

CODE = "import torch, time; start = time.perf_counter(); import gradguard; print(time.perf_counter() - start)"


def main() -> None:
    command = [sys.executable, "-c", CODE]
    seconds = [float(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(15)]
    low, middle, high = statistics.quantiles(seconds, n=4)
    print(f"{machine()}\nimport gradguard: {middle * 1e3:.0f} ms (quartiles {low * 1e3:.0f} to {high * 1e3:.0f})")


if __name__ == "__main__":
    main()
