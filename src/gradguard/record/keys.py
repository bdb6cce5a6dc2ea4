"""How series of parameters are called."""

from __future__ import annotations

RESERVED = frozenset({"total", "clipped", "mean", "max"})  # names under grad_norm/ that are not parameters


def grad_norm_key(parameter: str) -> str:
    """Name a parameter among the series under ``grad_norm/``.

    >>> grad_norm_key("encoder.weight"), grad_norm_key("total")
    ('encoder.weight', 'param.total')
    """
    return f"param.{parameter}" if parameter in RESERVED else parameter
