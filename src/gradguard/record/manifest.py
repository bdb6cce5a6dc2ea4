"""The manifest of a run's folder: which segments make the record, in order. Replaced as a whole, never edited."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from gradguard.errors import RecordError

FORMAT = 1
NAME = "manifest.json"
SEGMENT = re.compile(r"segment-(\d{6,12})\.jsonl", re.ASCII)
LONGEST = 1 << 20  # bytes of a manifest: what is longer was never written by us


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
        replace_file(folder / NAME, [json.dumps(content, indent=2).encode(), b"\n"])


def read_manifest(folder: Path) -> Manifest:
    """Read a folder's manifest.

    Raises:
        RecordError: there is none, it is damaged, or of a newer format.
    """
    path = folder / NAME
    try:
        with path.open("rb") as file:
            content = json.loads(file.read(LONGEST))
        version = content["format"]
    except (FileNotFoundError, NotADirectoryError):
        raise RecordError(f"There is no run record at {folder}: it needs a {NAME}.") from None
    except OSError as error:
        raise RecordError(f"The manifest {path} can't be read ({error}).") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RecordError(f"The manifest {path} is damaged ({error!r}).") from error
    if isinstance(version, int) and version > FORMAT:
        raise RecordError(
            f"The run record at {folder} has format {version}, this GradGuard reads up to {FORMAT}. Upgrade gradguard."
        )
    try:
        return _manifest(content)
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(f"The manifest {path} is damaged ({error!r}).") from error


def _manifest(content: dict[str, Any]) -> Manifest:
    known = {field.name: content[field.name] for field in fields(Manifest)}
    segments, made_with = known["segments"], known["versions"]
    texts = [known[name] for name in ("run", "status", "created", "updated", "device")]
    if not (isinstance(segments, list) and isinstance(made_with, dict) and known["format"] == FORMAT):
        raise TypeError("segments, versions or format are of another type")
    if not all(isinstance(text, str) for text in (*texts, *segments, *made_with.values())):
        raise TypeError("a text is none")
    for name in segments:
        if not SEGMENT.fullmatch(name):  # nor does any path lead out of the folder
            raise ValueError(f"{name[:100]!r} is no segment")
    return Manifest(**{**known, "segments": tuple(segments)})


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


def replace_file(path: Path, content: Iterable[bytes]) -> int:
    """Write a file so that it is there whole or not at all; give its size."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        temporary.replace(path)
    except OSError:
        with suppress(OSError):  # of a full disk it would take the rest
            temporary.unlink(missing_ok=True)
        raise
    return size
