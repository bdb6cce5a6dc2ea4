"""The numbers of a whole run at bounded memory: neighbouring steps are merged, their extremes kept.

Shape legend: R = steps added, P = points kept, N = columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

POINTS = 1024  # most points of a series
ENTRIES = 1 << 20  # most entries of a table: three float32 tables of that many take 12 MB


class Points(NamedTuple):
    """One series. A point stands for a run of neighbouring steps once the run is long; no extreme is lost.

    Attributes:
        steps: int64, [P]; last step of each point.
        last: [P]; value at that step.
        low: [P]; smallest value among the point's steps, NaN left out.
        high: [P]; largest one.
    """

    steps: Tensor
    last: Tensor
    low: Tensor
    high: Tensor


@final
class Table:
    """Columns over steps. ``width`` steps share a point; where the points run out, it doubles.

    Args:
        names: the columns.
        points: most points kept, >= 2.
    """

    def __init__(self, names: tuple[str, ...], points: int = POINTS) -> None:
        self.names = names
        self.limit = points
        self.width = 1
        self.points: list[Points] = []  # complete ones, as pieces of tables [P, N]
        self.open: Points | None = None  # one row that stands for `filled` < `width` steps
        self.filled = 0

    def extend(self, new: Points) -> None:
        """Append points whose tables are [R, N]."""
        while len(new.steps):
            whole = len(new.steps) // self.width if not self.filled else 0
            if whole:
                cut = whole * self.width
                self._append(_merged(_slice(new, 0, cut), self.width))
            else:
                cut = min(self.width - self.filled, len(new.steps))
                part = _slice(new, 0, cut)
                self.open = _merged(_joined([self.open, part]) if self.open else part, 0)
                self.filled += cut
                if self.filled == self.width:
                    complete, self.open, self.filled = self.open, None, 0
                    self._append(complete)
            new = _slice(new, cut, len(new.steps))

    def _append(self, points: Points) -> None:
        self.points.append(points)
        most = max(2, min(self.limit, ENTRIES // len(self.names)))
        while sum(len(piece.steps) for piece in self.points) > most:
            kept = _joined(self.points)
            even = len(kept.steps) // 2 * 2
            rest = _slice(kept, even, len(kept.steps))
            if len(rest.steps):  # an odd one out waits, half full, for its partner
                self.open = rest if self.open is None else _merged(_joined([rest, self.open]), 0)
                self.filled += self.width
            self.points, self.width = [_merged(_slice(kept, 0, even), 2)], self.width * 2

    def aligned(self, names: tuple[str, ...], rows: Tensor) -> Tensor:
        """Put rows of other columns in the order of this table; one that is new is added, NaN so far."""
        if names == self.names:
            return rows
        new = tuple(name for name in names if name not in set(self.names))
        if new:
            self.points = [_widened(piece, len(new)) for piece in self.points]
            self.open = _widened(self.open, len(new)) if self.open else None
            self.names += new
        at = {name: i for i, name in enumerate(self.names)}
        whole = torch.full((len(rows), len(self.names)), torch.nan, dtype=rows.dtype)
        whole[:, [at[name] for name in names]] = rows
        return whole

    def _pieces(self) -> list[Points]:
        self.points = [_joined(self.points)] if len(self.points) > 1 else self.points
        return [*self.points, *([self.open] if self.open else [])]

    def whole(self) -> Points:
        """All columns, as tables [P, N]; the point that is still open included."""
        return _joined(self._pieces()) if self.points or self.open else _nothing(len(self.names))

    def series(self, column: int) -> Points:
        """One column, the point that is still open included."""
        pieces = [Points(steps, *(table[:, column] for table in tables)) for steps, *tables in self._pieces()]
        return _joined(pieces) if pieces else Points(*(field.reshape(-1) for field in _nothing(1)))

    def state_dict(self) -> dict[str, Any]:
        """Give everything, as lists, numbers and tensors."""
        points = list(_joined(self.points)) if self.points else None
        kept = {"width": self.width, "filled": self.filled, "open": list(self.open) if self.open else None}
        return {"names": list(self.names), "points": points, **kept}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], points: int) -> Table:
        """Make the table that gave this state."""
        table = cls(tuple(state["names"]), points)
        table.width, table.filled = state["width"], state["filled"]
        # A checkpoint that was loaded onto a GPU comes back to the host.
        points_, open_ = (Points(*(t.cpu() for t in state[of])) if state[of] else None for of in ("points", "open"))
        table.points, table.open = [points_] if points_ else [], open_
        return table


@final
class History(Mapping[str, Points]):
    """Series by name, such as ``grad_norm/total`` or ``update_ratio/encoder.weight``.

    Args:
        points: most points kept of a series; memory does not grow beyond that.
    """

    def __init__(self, points: int = POINTS) -> None:
        if points < 2:
            raise ValueError(f"History needs points >= 2, got {points}.")
        self._points = points
        self._tables: dict[str, Table] = {}
        self._where: dict[str, tuple[str, int]] = {}
        self._indexed: dict[str, int] = {}  # columns of each group that have a key

    def extend(self, group: str, names: tuple[str, ...], new: Points) -> None:
        """Append points [R, N] to the series ``group/name``; a group whose one name is empty is a series itself."""
        table = self._tables.setdefault(group, Table((), self._points))
        steps, last, low, high = new
        if low is last and high is last:  # plain rows
            low = high = last = table.aligned(names, last)
        else:
            last, low, high = (table.aligned(names, values) for values in (last, low, high))
        self._index(group, table)
        table.extend(Points(steps, last, low, high))

    def _index(self, group: str, table: Table) -> None:
        for column in range(self._indexed.get(group, 0), len(table.names)):
            self._where[_key(group, table.names[column])] = (group, column)
        self._indexed[group] = len(table.names)

    def width(self, group: str) -> int:
        """Say how many steps share a point of this group by now."""
        return self._tables[group].width if group in self._tables else 1

    def tables(self) -> Iterator[tuple[str, tuple[str, ...], Points]]:
        """Go through all groups: name, columns, points as tables [P, N]."""
        for group, table in self._tables.items():
            yield group, table.names, table.whole()

    def state_dict(self) -> dict[str, Any]:
        """Give everything, as containers, numbers and tensors."""
        return {group: table.state_dict() for group, table in self._tables.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the history that gave this state; how many points are kept from now on stays one's own."""
        self._tables = {group: Table.from_state(table, self._points) for group, table in state.items()}
        self._where, self._indexed = {}, {}
        for group, table in self._tables.items():
            self._index(group, table)

    def __getitem__(self, key: str) -> Points:
        group, column = self._where[key]
        return self._tables[group].series(column)

    def __iter__(self) -> Iterator[str]:  # group by group, whenever a column came
        return (_key(group, name) for group, table in self._tables.items() for name in table.names)

    def __len__(self) -> int:
        return len(self._where)


def _key(group: str, name: str) -> str:
    return f"{group}/{name}" if name else group


def rows(steps: Tensor, values: Tensor) -> Points:
    """Give the values [R, N] of single steps [R] as points."""
    return Points(steps, values, values, values)


def condensed(points: Points, width: int) -> Points:
    """Merge each ``width`` neighbouring points, and the fewer that are left over, into one."""
    even = len(points.steps) // width * width
    if width == 1 or not len(points.steps):
        return points
    pieces = [_merged(_slice(points, 0, even), width)] if even else []
    if even < len(points.steps):
        pieces.append(_merged(_slice(points, even, len(points.steps)), 0))
    return _joined(pieces)


def _nothing(columns: int) -> Points:
    empty = torch.zeros(0, columns, device="cpu")
    return Points(torch.zeros(0, dtype=torch.int64, device="cpu"), empty, empty, empty)


def _slice(points: Points, start: int, stop: int) -> Points:
    return Points(*(field[start:stop] for field in points))


def _joined(pieces: list[Points]) -> Points:
    return Points(*(torch.cat(fields) for fields in zip(*pieces, strict=True)))


def _widened(points: Points, columns: int) -> Points:
    steps, *tables = points
    return Points(steps, *(torch.nn.functional.pad(t, (0, columns), value=torch.nan) for t in tables))


def _merged(points: Points, width: int) -> Points:
    """Merge each ``width`` neighbouring points into one; all of them where it is 0."""
    width = width or len(points.steps)
    if width == 1:
        return points
    low, high = (t.view(-1, width, t.shape[1]) for t in (points.low, points.high))
    lowest = torch.where(low.isnan(), torch.inf, low).amin(1)
    highest = torch.where(high.isnan(), -torch.inf, high).amax(1)
    none = low.isnan().all(1)
    return Points(  # of clones: a view would keep all that was merged in memory
        points.steps[width - 1 :: width].clone(),
        points.last[width - 1 :: width].clone(),
        torch.where(none, torch.nan, lowest),
        torch.where(none, torch.nan, highest),
    )
