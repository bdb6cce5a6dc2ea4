"""The manifest of a run's folder: which segments make the record, in order. Replaced as a whole, never edited."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path

import torch

from gradguard.errors import RecordError

FORMAT = 1
NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """What a folder holds.

    Attributes:
        run: identifies the run; a resumed one keeps it.
        segments: file names, oldest first; the last one is being written.
        status: ``running``, ``finished``, or how the run ended. A killed run stays ``running``.
        created: when the run began, ISO 8601 in UTC.
        updated: when this manifest was written.
        versions: of GradGuard, torch, Python and the system.
        device: what it was trained on.
        format: version of the record's format.
    """

    run: str
    segments: tuple[str, ...]
    status: str
    created: str
    updated: str
    versions: dict[str, str]
    device: str
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Replace the folder's manifest: whoever reads sees the old one or the new one."""
        content = asdict(replace(self, updated=now()))
        replace_file(folder / NAME, json.dumps(content, indent=2).encode() + b"\n")


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises:
        RecordError: there is none, it is damaged, or of a newer format.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_bytes())
        version = content["format"]
    except FileNotFoundError:
        raise RecordError(f"There is no run record at {folder}: it needs a {NAME}.") from None
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise RecordError(f"The manifest {path} is damaged ({error}).") from error
    if not isinstance(version, int) or version > FORMAT:
        raise RecordError(
            f"The run record at {folder} has format {version}, this GradGuard reads up to {FORMAT}. Upgrade gradguard."
        )
    try:
        known = {field.name: content[field.name] for field in fields(Manifest)}
        segments = tuple(map(str, known["segments"]))
        if any(Path(name).name != name for name in segments):
            raise ValueError("a segment lies outside the folder")
        return Manifest(**{**known, "segments": segments})
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"The manifest {path} is damaged ({error}).") from error


def versions() -> dict[str, str]:
    """Say what the run is made with."""
    import gradguard  # the version stands at the top of the house

    return {
        "gradguard": gradguard.__version__,
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def now() -> str:
    """The time, as the manifest writes it."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
