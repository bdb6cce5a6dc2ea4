"""What an initialiser changed, to be printed and logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, final


class Change(NamedTuple):
    """One weight, or one gate's block of it.

    Attributes:
        name: as ``named_parameters`` spells it, with the gate behind: ``encoder.lstm.bias_l0[f]``.
        statistic: what was measured.
        before: its value before the change.
        after: its value now.
        note: why it is so.
    """

    name: str
    statistic: str
    before: float
    after: float
    note: str = ""


@final
class Changes(tuple[Change, ...]):
    """All changes of one call, or of several joined by ``+``; printed, they are a table.

    >>> print(Changes([Change("lstm.bias_l0[f]", "mean bias total", 0.02, 1.0)]))
    name             statistic        before  after
    lstm.bias_l0[f]  mean bias total    0.02      1
    """

    __slots__ = ()

    def numbers(self) -> dict[str, float]:
        """Give the values after the change by name and statistic, as one logs them.

        >>> Changes([Change("lstm.bias_l0[f]", "mean bias total", 0.02, 1.0)]).numbers()
        {'lstm.bias_l0.f/mean_bias_total': 1.0}
        """
        plain = str.maketrans({"[": ".", "]": "", " ": "_"})
        return {f"{c.name}/{c.statistic}".translate(plain): c.after for c in self}

    def __add__(self, other: object) -> Changes:
        """Join what several calls changed."""
        return Changes((*self, *other)) if isinstance(other, Changes) else NotImplemented

    def __str__(self) -> str:
        """Write a table."""
        if not self:
            return "nothing was changed"
        header = ("name", "statistic", "before", "after", "why" if any(c.note for c in self) else "")
        return columns(header, ((c.name, c.statistic, f"{c.before:.4g}", f"{c.after:.4g}", c.note) for c in self), 2)

    __repr__ = __str__


def columns(header: tuple[str, ...], rows: Iterable[tuple[str, ...]], right: int) -> str:
    """Write a table whose columns from ``right`` on are numbers, but for the last one; empty ones are left out."""
    lines = [header, *rows]
    if len(lines) > 1:
        kept = [i for i in range(len(header)) if i == len(header) - 1 or any(line[i] for line in lines[1:])]
        lines = [tuple(line[i] for i in kept) for line in lines]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    last = len(lines[0]) - 1

    def line(cells: tuple[str, ...]) -> str:
        padded = (
            cell.rjust(width) if right <= i < last else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    return "\n".join(line(cells) for cells in lines)
