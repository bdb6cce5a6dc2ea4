"""Small records made by hand: a journal that is fed blocks, and what was in them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gradguard.detect import Block, Finding, Layout, Severity, Symptom
from gradguard.guard.journal import Journal
from gradguard.record import History
from tests.detect.blocks import block, layout

OF = layout(3, bias=True)
EVERY = 10


def blocks(flushes: int, of: Layout = OF, every: int = EVERY, seed: int = 0, first_step: int = 1) -> list[Block]:
    """Blocks with random norms and losses; the last step of each is a sampled one."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for i in range(flushes):
        start = first_step + i * every
        norms = torch.rand(every, len(of.names), generator=generator, dtype=torch.float64).exp()
        losses = dict(zip(range(start, start + every), torch.rand(every, generator=generator).tolist(), strict=True))
        ratios = {start + every - 1: torch.rand(len(of.names), generator=generator).tolist()}
        made.append(block(of, norms, first_step=start, losses=losses, ratios=ratios))
    return made


def finding(
    first: int = 1, last: int = 5, *, active: bool = True, optimizer: str = "optimizer", **evidence: object
) -> Finding:
    span = (first, last, active)
    return Finding(Symptom.VANISHING_DEPTH, Severity.WARNING, ("layer0",), optimizer, *span, evidence, "It shrinks.")


def journal(folder: Path | None, points: int = 64) -> Journal:
    made = Journal(points, folder, "cpu")
    made.open()
    return made


def feed(to: Journal, those: Sequence[Block], findings: Sequence[Finding] = (), prefix: str = "") -> None:
    for one in those:
        to.take(one.layout.optimizer, prefix, one, findings)


def same(found: History, expected: History) -> None:
    """All series are equal, bit for bit."""
    assert list(found) == list(expected)
    for key, points in expected.items():
        for name, values in points._asdict().items():
            assert torch.equal(bits(getattr(found[key], name)), bits(values)), f"{name} of {key}"


def bits(values: Tensor) -> Tensor:
    assert values.device.type == "cpu"
    return values.contiguous().view(torch.int64 if values.element_size() == 8 else torch.int32)


def copy_of(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def tensor_bytes(of: History) -> int:
    """Bytes of the storages behind a history, views counted as what they keep alive."""
    held = [t for table in of._tables.values() for p in (*table.points, table.open) if p is not None for t in p]
    return sum({s.data_ptr(): s.nbytes() for s in (t.untyped_storage() for t in held)}.values())
