"""Write down what a guard measures of each run, and look at it again with other detectors, in seconds.

``python -m benchmarks.faults.recording --half tuning --out FOLDER`` runs the programs and saves the blocks of each;
``replay(FOLDER, detectors)`` shows them to detectors, block by block, as a guard would.
"""

from __future__ import annotations

import argparse
import copy
import io
import pickle
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from benchmarks.faults.corpus import Unit, corpus
from benchmarks.faults.guarded import AbstractGuarded
from benchmarks.faults.running import of_processes, run
from benchmarks.faults.selection import add_selection, selected
from gradguard.detect import AbstractDetector, Block, Finding, Severity
from gradguard.guard import Flush


class Recorder(AbstractGuarded):
    """Watches with a guard that has no detectors.

    Attributes:
        blocks: step of the loop at which each came, the optimizer's name, the block.
    """

    settings: ClassVar[Mapping[str, Any]] = {"detectors": ()}

    def __init__(self) -> None:
        super().__init__()
        self.blocks: list[tuple[int, str, Block]] = []

    def heard(self, flush: Flush) -> None:
        self.blocks.append((self.now, flush.optimizer, pickle.loads(packed(flush.block))))


class _Packer(pickle.Pickler):
    """Saves of a tensor what it shows, and not the storage of all others that it is a view of."""

    def reducer_override(self, obj: Any) -> Any:
        return (torch.from_numpy, (obj.numpy().copy(),)) if type(obj) is torch.Tensor else NotImplemented


def packed(what: object) -> bytes:
    """Pickle something with tensors in it, small."""
    buffer = io.BytesIO()
    _Packer(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(what)
    return buffer.getvalue()


def save(unit: Unit, folder: str) -> Path:
    """Run one unit and save its blocks."""
    unit, recorder = Unit(*unit), Recorder()
    score = run(corpus()[unit.program], unit.lr, unit.seed, [recorder])
    path = Path(folder) / f"{unit.program.replace('/', '+')}@{unit.lr:g}@{unit.seed}.pickle"
    path.write_bytes(packed({"unit": tuple(unit), "score": score, "blocks": recorder.blocks}))
    return path


@cache
def recordings(folder: str | Path) -> dict[Unit, list[tuple[int, str, Block]]]:
    """Read all that was saved in a folder; once in a process."""
    found: dict[Unit, list[tuple[int, str, Block]]] = {}
    for path in sorted(Path(folder).glob("*.pickle")):
        saved: dict[str, Any] = pickle.loads(path.read_bytes())
        found[Unit(*saved["unit"])] = saved["blocks"]
    return found


def replay(folder: str | Path, detectors: Sequence[AbstractDetector]) -> dict[Unit, dict[str, tuple[int, Severity]]]:
    """Show every run of a folder to fresh copies of some detectors, one set for each optimizer.

    Returns:
        By unit and symptom: the worst severity that it ever had, and the step of the loop at which it was first noticed
        as a warning or worse; of one that stayed at info, the step at which it was first noticed.
    """
    return {unit: said_of(blocks, detectors) for unit, blocks in recordings(folder).items()}


def said_of(
    blocks: Sequence[tuple[int, str, Block]], detectors: Sequence[AbstractDetector]
) -> dict[str, tuple[int, Severity]]:
    """Show the blocks of one run to fresh copies of some detectors; see :func:`replay`."""
    of: dict[str, list[AbstractDetector]] = {}
    said: dict[str, tuple[int, Severity]] = {}
    for step, optimizer, block in blocks:
        mine = of.setdefault(optimizer, copy.deepcopy(list(detectors)))
        for detector in mine:
            detector.observe(block)
        for finding in (finding for detector in mine for finding in detector.findings()):
            _note(said, step, finding)
    return said


def _note(said: dict[str, tuple[int, Severity]], step: int, finding: Finding) -> None:
    name, severity = finding.symptom.value, finding.severity
    first, before = said.get(name, (step, Severity.INFO))
    if before is Severity.INFO and severity is not Severity.INFO:
        first = step
    said[name] = (first, max(before, severity, key=lambda one: one.rank))


def main() -> None:
    """Run and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_selection(parser, "tuning")
    parser.add_argument("--out", required=True, help="folder for the blocks")
    arguments = parser.parse_args()
    Path(arguments.out).mkdir(parents=True, exist_ok=True)
    units = selected(arguments.half, arguments.only, unconfirmed=arguments.unconfirmed)
    paths = of_processes(partial(save, folder=arguments.out), units, arguments.processes)
    size = sum(path.stat().st_size for path in paths)
    print(f"{len(paths)} runs, {size / 1e6:.0f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
