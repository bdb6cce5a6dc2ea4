"""What is left of the gradient over lag and training step, as a table.

Shape legend: S = sampled steps, L = lags that were kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.record import Points

_SERIES = re.compile(r"(?P<prefix>.+/)?memory/(?P<layer>.+)/(?P<lag>\d+)", re.DOTALL)


class Memory(NamedTuple):
    """One layer over a run. All tensors are on the CPU.

    Attributes:
        layer: its name; behind that of its optimizer, where several were guarded.
        steps: int64, [S], rising; the optimizer steps that were looked at.
        lags: int64, [L], rising from 0; steps counted back from the end of a sequence.
        shares: float64, [S, L], in [0, 1]: size of the gradient at a lag over the largest one of its step; NaN beyond
            the sequence, and in the whole row where nothing came back.
        horizons: float64, [S], the lag from which on less than 1 % is left; where that is beyond the sequence, its
            length. NaN where it is not known.
        lengths: float64, [S], steps of a sequence, on average; NaN where they are not known.
    """

    layer: str
    steps: Tensor
    lags: Tensor
    shares: Tensor
    horizons: Tensor
    lengths: Tensor


def memory_of(history: Mapping[str, Points], layer: str | None = None) -> Memory:
    r"""Give what is left of the gradient over lag and training step.

    .. math:: \mathrm{share}_{s, l} = m_{s, l} / \max_k m_{s, k}

    Args:
        history: ``guard.history``, or ``gradguard.record.read(folder).history``, of a guard with ``through_time``.
        layer: such as ``lstm.l0``; with several optimizers, the optimizer's name and ``/`` may stand before it, and do
            where two have a layer of that name. None where there is one layer.

    Returns:
        The table. Where the run was long, a row stands for neighbouring steps, with the values of the last of them.

    Raises:
        ValueError: nothing was looked at through time; no such layer, or more than one.
        TypeError: no history.

    Host sync: none. Mutates: nothing.

    >>> from gradguard.record import Points
    >>> step = torch.tensor([25])
    >>> sizes = {"memory/lstm.l0/0": 2.0, "memory/lstm.l0/1": 0.5}
    >>> history = {name: Points(step, *[torch.tensor([size])] * 3) for name, size in sizes.items()}
    >>> memory_of(history).shares
    tensor([[1.0000, 0.2500]], dtype=torch.float64)
    """
    if not isinstance(history, Mapping):
        raise TypeError(
            f"memory_of needs a history, such as guard.history or gradguard.record.read(folder).history, got "
            f"{type(history).__name__}."
        )
    group, series = _chosen(history, layer)
    lags = sorted(series)
    columns = [history[series[lag]] for lag in lags]
    steps = torch.cat([points.steps for points in columns]).unique()
    sizes = torch.stack([_at(steps, points) for points in columns], 1)
    summary = f"{group.prefix}through_time/{group.layer}"
    horizons, lengths = (_at(steps, history.get(f"{summary}/{name}")) for name in ("horizon", "length"))
    return Memory(str(group), steps, torch.tensor(lags, device="cpu"), shares_of(sizes), horizons, lengths)


def layers_with_memory(history: Mapping[str, Points]) -> list[str]:
    """Give the names of the layers that were looked at through time, as :func:`memory_of` takes them."""
    return list(dict.fromkeys(str(group) for group in _groups(history)))


def shares_of(sizes: Tensor) -> Tensor:
    """Divide sizes [..., L] by the largest of their row, float64.

    What overflowed is all of it, and what did not, nothing. A row without a size above 0 is NaN.

    Host sync: none. Mutates: nothing.

    >>> shares_of(torch.tensor([2.0, 4.0, torch.nan]))
    tensor([0.5000, 1.0000,    nan], dtype=torch.float64)
    """
    sizes = sizes.double()
    largest = sizes.nan_to_num(0.0, posinf=torch.inf).amax(-1, keepdim=True)
    return torch.where(sizes.isinf(), 1.0, sizes / largest)  # 0 / 0 is NaN


class _Group(NamedTuple):
    """Where the series of a layer are: with several optimizers, behind the name of its own and a slash."""

    prefix: str
    layer: str

    def __str__(self) -> str:
        return self.prefix + self.layer


def _groups(history: Mapping[str, Points]) -> dict[_Group, dict[int, str]]:
    """Give where each layer is, and its series by lag."""
    groups: dict[_Group, dict[int, str]] = {}
    for key in history:
        if (found := _SERIES.fullmatch(key)) is not None:
            groups.setdefault(_Group(found["prefix"] or "", found["layer"]), {})[int(found["lag"])] = key
    return groups


def _chosen(history: Mapping[str, Points], layer: str | None) -> tuple[_Group, dict[int, str]]:
    """Give where a layer is, and its series by lag."""
    groups = _groups(history)
    if not groups:
        raise ValueError(
            "What is left over time needs a history of a guard that looks into recurrent layers, and this one has no "
            "series memory/... in it. Pass Guard(..., through_time=True), or GradGuard(through_time=True)."
        )
    fits = [group for group in groups if layer is None or str(group) == layer]
    fits = fits or [group for group in groups if group.layer == layer]
    if len(fits) != 1:
        got = "no name" if layer is None else repr(layer) + (", which is more than one of them" if fits else "")
        raise ValueError(
            f"What is left over time needs the name of a layer, of {', '.join(map(str, groups))}; got {got}."
        )
    return fits[0], groups[fits[0]]


def _at(steps: Tensor, points: Points | None) -> Tensor:
    """Give the values at some steps, float64; NaN where there is none."""
    found = torch.full((len(steps),), torch.nan, dtype=torch.float64, device="cpu")
    if points is not None:
        there = torch.isin(points.steps, steps)
        found[torch.searchsorted(steps, points.steps[there])] = points.last[there].double()
    return found
