"""The lines of a segment: one JSON object each, numbers packed as base64 of little-endian floats.

Packed, since a table of 50 steps by 200 parameters is written and read ten times as fast as decimal text and needs no
word for NaN.
"""

from __future__ import annotations

import base64
import binascii
import json
import sys
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradguard.record.event import Event, event_to_plain
from gradguard.record.history import Points

_DTYPES = {"f": torch.float32, "d": torch.float64, "q": torch.int64}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


def line(content: dict[str, Any]) -> bytes:
    """One line, its newline included: a line without one was torn."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n"


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


def points_of(content: dict[str, Any], width: int) -> Points:
    """Read a table of ``width`` columns back.

    Raises:
        ValueError: the line does not hold what it says.
    """
    steps, last = unpack(content["steps"]), unpack(content["last"])
    low, high = (unpack(content[name]) if name in content else last for name in ("low", "high"))
    if steps.dtype is not torch.int64 or any(len(t) != len(steps) * width for t in (last, low, high)):
        raise ValueError("steps and values do not match")
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
    """Read them back, as a vector.

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
    return torch.frombuffer(values, dtype=dtype) if values else torch.zeros(0, dtype=dtype)
