"""Run a program, with whoever watches, and say how good its model became."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

import torch

from benchmarks.faults.program import Loop, Program

SEEDS = (0, 1, 2, 3, 4)


class Watcher(Protocol):
    """Somebody who watches a run."""

    def start(self, program: Program, loop: Loop) -> None:
        """The loop was built and has not run."""

    def record(self, step: int, loss: torch.Tensor, optimizer: str | None) -> None:
        """A loss, before the step of that number."""

    def after(self, step: int) -> None:
        """The step was made."""

    def end(self) -> None:
        """The run is over."""


def run(program: Program, lr: float, seed: int, watchers: Sequence[Watcher] = ()) -> float:
    """Train from a seed and give the final score; no watcher changes it."""
    torch.manual_seed(10_000 * seed + 17)
    loop = program.make(lr)
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        for watcher in watchers:
            watcher.start(program, loop)
        for step in range(1, program.steps + 1):

            def record(loss: torch.Tensor, optimizer: str | None = None, step: int = step) -> None:
                for watcher in watchers:
                    watcher.record(step, loss.detach(), optimizer)

            loop.step(step, record)
            for watcher in watchers:
                watcher.after(step)
        for watcher in watchers:
            watcher.end()
        return loop.score()


def of_processes(work: Callable[[Any], Any], units: Sequence[Any], processes: int) -> list[Any]:
    """Do the same to each unit (names and numbers, nothing with functions in it), in processes of one thread each."""
    from torch.multiprocessing import get_context

    torch.set_num_threads(1)
    if processes == 1:
        return [work(unit) for unit in units]
    with get_context("spawn").Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return pool.map(work, units, chunksize=4)
