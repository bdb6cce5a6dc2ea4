"""The lines of a segment: one JSON object each, numbers packed as base64 of little-endian floats.

Packed, since a table of 50 steps by 200 parameters is written and read ten times as fast as decimal text and needs no
word for NaN. Each line ends in a checksum, so that a damaged number is never taken for a measured one.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradguard.detect import Finding, Layout
from gradguard.record.event import Event
from gradguard.record.history import Points
from gradguard.record.plain import event_to_plain, finding_to_plain, layout_to_plain

_DTYPES = {"f": torch.float32, "d": torch.float64, "q": torch.int64}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def line(content: dict[str, Any]) -> bytes:
    """One line, its newline included: a line without one was torn."""
    body = json.dumps(content, separators=(",", ":"), allow_nan=False).encode().removesuffix(b"}")
    return body + _ending(body)


def content_of(text: bytes) -> dict[str, Any]:
    """Read a line back.

    Raises:
        ValueError: it is not as it was written.
    """
    size = len(_ending(b""))
    if text[-size:] != _ending(text[:-size]):
        raise ValueError("the checksum is another line's")
    content: dict[str, Any] = json.loads(text)
    return content


def _ending(body: bytes) -> bytes:
    return b',"crc":"%08x"}\n' % zlib.crc32(body)


def points_line(group: str, columns: int, points: Points) -> bytes:
    """Write a table of points; its columns were named by an earlier line."""
    steps, last, low, high = points
    content = {"points": group, "columns": columns, "steps": pack(steps), "last": pack(last)}
    if low is not last or high is not last:
        content |= {"low": pack(low), "high": pack(high)}
    return line(content)


def columns_line(group: str, columns: int, names: Sequence[str]) -> bytes:
    """Name the columns of a group."""
    return line({"names": list(names), "of": group, "columns": columns})


def event_line(event: Event) -> bytes:
    """Write an event, in words that ``grep`` finds."""
    return line({"event": event_to_plain(event)})


def findings_line(optimizer: str, findings: Sequence[Finding]) -> bytes:
    """Write the findings of an optimizer as they stand."""
    return line({"findings": [finding_to_plain(finding) for finding in findings], "optimizer": optimizer})


def layout_line(layout: Layout) -> bytes:
    """Write the parameters of an optimizer."""
    return line({"layout": layout_to_plain(layout)})


def points_of(content: dict[str, Any], width: int) -> Points:
    """Read a table of ``width`` columns back.

    Raises:
        ValueError: the line does not hold what it says.
    """
    steps, last = unpack(content["steps"]), unpack(content["last"])
    low, high = (unpack(content[name]) if name in content else last for name in ("low", "high"))
    if steps.dtype is not torch.int64 or not width or any(len(t) != len(steps) * width for t in (last, low, high)):
        raise ValueError("steps and values do not match")
    if not all(t.is_floating_point() for t in (last, low, high)) or (steps.diff() <= 0).any():
        raise ValueError("no values, or steps that do not rise")
    last_, low_, high_ = (t.reshape(len(steps), width) for t in (last, low, high))
    return Points(steps, last_, low_ if "low" in content else last_, high_ if "high" in content else last_)


def pack(values: Tensor) -> str:
    """Write numbers as their type's letter and base64."""
    code = _CODES[values.dtype]
    packed = array(code, values.reshape(-1).tolist())
    if sys.byteorder == "big":
        packed.byteswap()
    return code + base64.b64encode(packed.tobytes()).decode()


def unpack(text: str) -> Tensor:
    """Read them back, as a vector on the CPU.

    Raises:
        ValueError: it is not what :func:`pack` gives.
    """
    if not isinstance(text, str) or text[:1] not in _DTYPES:
        raise ValueError("no packed numbers")
    values = array(text[0])
    try:
        values.frombytes(base64.b64decode(text[1:], validate=True))
    except binascii.Error as error:
        raise ValueError(str(error)) from error
    if sys.byteorder == "big":
        values.byteswap()
    dtype = _DTYPES[text[0]]
    return torch.frombuffer(values, dtype=dtype) if values else torch.zeros(0, dtype=dtype, device="cpu")
