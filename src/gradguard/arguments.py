"""Numbers that a user passes: what is meant, and what is wrong with what else comes."""

from __future__ import annotations

import math
import operator
from typing import Any


def number(who: str, name: str, value: Any, *, above: float = -math.inf, least: float = -math.inf) -> float:
    """Give a number > ``above`` and >= ``least``; Inf where that is meant, never NaN.

    Raises:
        ValueError: it is out of range.
        TypeError: it is no number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{who} needs {name} to be a number, got {value!r}.")
    if math.isnan(value) or value < least or (value <= above and above > -math.inf):
        bound = f"> {above:g}" if above > -math.inf else f">= {least:g}" if least > -math.inf else "a number"
        raise ValueError(f"{who} needs {name} {bound}, got {value!r}.")
    return float(value)


def positive(who: str, name: str, value: float) -> float:
    """Give a finite number > 0.

    Raises:
        ValueError: it is out of range.
        TypeError: it is no number.
    """
    if math.isinf(found := number(who, name, value, above=0)):
        raise ValueError(f"{who} needs {name} to be finite, got {value!r}.")
    return found


def share(who: str, name: str, value: Any, *, most: float = 1.0) -> float:
    """Give a number in [0, ``most``), such as a decay.

    Raises:
        ValueError: it is out of range.
        TypeError: it is no number.
    """
    if not 0 <= number(who, name, value) < most:
        raise ValueError(f"{who} needs 0 <= {name} < {most:g}, got {value!r}.")
    return float(value)


def whole_number(who: str, name: str, value: Any, *, least: int = 1) -> int:
    """Give a number that counts something.

    Raises:
        ValueError: it is too small, or no integer.
    """
    try:
        found = least - 1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = least - 1
    if found < least:
        raise ValueError(f"{who} needs {name} to be an integer >= {least}, got {value!r}.")
    return found


def patience(who: str, value: Any) -> int | None:
    """Give the number of steps after which a clipper begins anew; None for never."""
    return None if value is None else whole_number(who, "reanchor", value, least=2)
