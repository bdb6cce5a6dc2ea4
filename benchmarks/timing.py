"""Fair timing on a noisy machine: contenders take turns, ratios are taken within a round, spread is printed."""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter

import torch


def machine(device: str = "cpu") -> str:
    """Say what this was measured on."""
    place = f"{torch.cuda.get_device_name()}, " if device == "cuda" else ""
    return (
        f"{place}torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    )


def rounds(contenders: Mapping[str, Callable[[], float]], n: int, *, seed: int = 0) -> dict[str, list[float]]:
    """Let each contender take a turn in each of ``n`` rounds, in random order; give the seconds that each returns."""
    shuffle, seconds = random.Random(seed), {name: [] for name in contenders}
    for i in range(n + 1):
        order = list(contenders)
        shuffle.shuffle(order)
        for name in order:
            value = contenders[name]()
            if i:  # the first round warms caches up
                seconds[name].append(value)
        print(f"\rround {i}/{n}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return seconds


def median_of_calls(call: Callable[[], object], repeats: int) -> float:
    """Median seconds of several calls in a row."""
    values = []
    for _ in range(repeats):
        start = perf_counter()
        call()
        values.append(perf_counter() - start)
    return statistics.median(values)


def ratio(of: Sequence[float], to: Sequence[float], *, seed: int = 0) -> tuple[float, float, float]:
    """Median of the ratios within a round, with a bootstrapped 95 % interval."""
    ratios = [a / b for a, b in zip(of, to, strict=True)]
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[-51]


def microseconds(seconds: Sequence[float]) -> str:
    """Median and quartiles, in microseconds."""
    low, middle, high = statistics.quantiles(seconds, n=4)
    return f"{middle * 1e6:,.0f} ({low * 1e6:,.0f} to {high * 1e6:,.0f})"


def interval(triple: tuple[float, float, float]) -> str:
    """Write a ratio and its interval."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*triple)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
