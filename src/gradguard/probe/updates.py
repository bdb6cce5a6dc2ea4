"""How far one optimizer step moves each parameter, from a strided sample of its entries.

Shape legend: N = number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.functional import in_memory_order, norms, norms_over_mesh
from gradguard.names import Known, known_parameters, layer_of

RUN = 16  # neighbouring entries that are sampled together: one line of the cache
PER_PARAMETER = 1 << 13  # entries: a ratio of norms from that many is good to a few per cent
USUAL = (1e-4, 1e-1)  # update norm over weight norm
BUDGET = 1 << 24  # entries of all parameters together: 64 MB of float32


class Update(NamedTuple):
    """What one step did.

    Attributes:
        weight_norms: [N], norm of each whole parameter before the step.
        ratios: [N], norm of the change over norm of the weights, both over the sample; NaN where the weights are zero
            or sparse.
    """

    weight_norms: Tensor
    ratios: Tensor


class StepSize(NamedTuple):
    """By how much one step changed a parameter, or all parameters of a layer.

    Attributes:
        name: of the parameter or the layer.
        weight_norm: norm before the step.
        update_norm: norm of the change; NaN where the ratio is not known.
        ratio: update norm over weight norm; NaN where the weights were 0 or are sparse.
        mark: ``large`` or ``small`` where it is a weight matrix whose ratio lies outside of 1e-4 to 1e-1, or a layer
            that has one; else empty.
    """

    name: str
    weight_norm: float
    update_norm: float
    ratio: float
    mark: str = ""


@final
class StepSizes:
    """What a step did to the weights; empty as long as it is not over. ``print()`` shows a table of the layers.

    Attributes:
        parameters: of each parameter that the optimizer trains, in the order of the model.
        layers: of each layer, its parameters taken together.
    """

    def __init__(self) -> None:
        self.parameters: tuple[StepSize, ...] = ()
        self.layers: tuple[StepSize, ...] = ()

    def __str__(self) -> str:
        if not self.layers:
            return "No step was looked at yet."
        width = max(len("layer"), *(len(one.name) for one in self.layers))
        head = f"{'layer':<{width}}  weight norm  update norm    ratio"
        lines = [
            f"{one.name or '(root)':<{width}}  {one.weight_norm:>11.4g}  {one.update_norm:>11.4g}  {one.ratio:>7.1e}"
            + (f"  {one.mark}" if one.mark else "")
            for one in self.layers
        ]
        still = all(one.ratio == 0 for one in self.layers if one.ratio == one.ratio)
        rest = ["Nothing moved: was the step skipped, or is the learning rate 0?"] if still else []
        return "\n".join(
            [f"Update norm / weight norm of one step, usually {USUAL[0]:.0e} to {USUAL[1]:.0e}", head, *lines, *rest]
        )


@contextmanager
def updates(model: nn.Module, optimizer: Optimizer) -> Iterator[StepSizes]:
    r"""Look at one step of a loop of one's own: by how much it changes each parameter and each layer.

    .. math:: r = \lVert w' - w \rVert_2 \,/\, \lVert w \rVert_2

    About 1e-3 is usual. Far more overwrites what was learnt, far less learns nothing. Of parameters of more than 8,192
    entries the ratio is that of a sample of these. A guard does this by itself every n steps.

    Args:
        model: gives names and order.
        optimizer: the one that steps within; all its parameters that need gradients are looked at.

    Returns:
        A context manager; what it gives is filled in once it is left.

    Raises:
        TypeError: no model or optimizer.
        ValueError: an optimizer that trains nothing of the model.

    Source: the band 1e-4 to 1e-1 is TheDeepChecker's. Host sync: one. Mutates: nothing.

    >>> model = nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> model(torch.ones(1, 2)).sum().backward()
    >>> with updates(model, optimizer) as looked:
    ...     optimizer.step()
    >>> [one.name for one in looked.parameters], looked.layers[0].ratio > 0
    (['weight', 'bias'], True)
    """
    found = _trained(model, optimizer)
    looked, probe = StepSizes(), UpdateProbe([param for _, param in found])
    yield looked
    update = probe.finish()
    read = torch.stack([update.weight_norms.cpu().double(), update.ratios.cpu().double()], dim=1).tolist()
    sizes = [
        StepSize(at.name, norm, norm * ratio, ratio, _mark(ratio) if param.ndim > 1 else "")
        for (at, param), (norm, ratio) in zip(found, read, strict=True)
    ]
    by_layer: dict[str, list[StepSize]] = {}
    for (at, _), size in zip(found, sizes, strict=True):
        by_layer.setdefault(layer_of(at), []).append(size)
    looked.parameters, looked.layers = tuple(sizes), tuple(_together(name, of) for name, of in by_layer.items())


def _trained(model: nn.Module, optimizer: Optimizer) -> list[tuple[Known, Tensor]]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"updates needs a torch.nn.Module, got {type(model).__name__}.")
    groups = getattr(optimizer, "param_groups", None)
    if not isinstance(groups, list):
        raise TypeError(f"updates needs a torch.optim.Optimizer, got {type(optimizer).__name__}.")
    known = known_parameters({"": model})
    params = {id(p): p for group in groups for p in group["params"] if p.requires_grad and id(p) in known}
    if not params:
        raise ValueError(
            f"updates needs the model that {type(optimizer).__name__} trains, {type(model).__name__} has none of its "
            "parameters that need gradients."
        )
    return sorted(((known[i], p) for i, p in params.items()), key=lambda one: one[0].position)


def _mark(ratio: float) -> str:
    return "large" if ratio > USUAL[1] else "small" if ratio < USUAL[0] else ""


def _together(layer: str, sizes: list[StepSize]) -> StepSize:
    """Join parameters; those whose ratio is not known count for the weight norm only."""
    norm = math.hypot(*(one.weight_norm for one in sizes))
    moved = [one.update_norm for one in sizes if one.update_norm == one.update_norm]
    update = math.hypot(*moved) if moved else math.nan
    marks = {one.mark for one in sizes} - {""}
    return StepSize(layer, norm, update, update / norm if norm else math.nan, " and ".join(sorted(marks)))


@final
class UpdateProbe:
    """Looks at the parameters before and after one step. Keeps a sample of at most 64 MB in between, no copy of them.

    A parameter of at most 8,192 entries is compared whole; of a larger one, runs of 16 entries are, spread
    evenly over its rows and columns.

    Args:
        params: N parameters, which the step is about to change. A DTensor is sampled shard by shard: all ranks
            must make and finish the probe together.

    Host sync: none. Mutates: nothing.
    """

    def __init__(self, params: Sequence[Tensor]) -> None:
        self.params = tuple(params)
        self.weight_norms = norms([p.detach() for p in params])
        self.before = [sample.clone() for sample in self._samples()]

    def finish(self) -> Update:
        """Compare, after the step."""
        after = self._samples()
        moved = [a - b.to(a.dtype) for a, b in zip(after, self.before, strict=True)]
        both = norms([*moved, *self.before])
        local_moved, local_before = both[: len(after)], both[len(after) :]
        moved_by, were = (norms_over_mesh(part, self.params) for part in (local_moved, local_before))
        self.before = []
        return Update(self.weight_norms, torch.where(were > 0, moved_by / were, torch.nan))

    @torch.no_grad()
    def _samples(self) -> list[Tensor]:
        most = max(RUN, min(PER_PARAMETER, BUDGET // max(1, len(self.params))))
        return [_sample(p.detach(), most) for p in self.params]


def _sample(param: Any, most: int) -> Tensor:
    """View runs of entries of what this rank holds: [runs, RUN], or all of it as one vector."""
    local: Tensor = param.to_local() if hasattr(param, "to_local") else param
    if local.layout is not torch.strided:
        return local.new_zeros(0, layout=torch.strided)  # its entries have no fixed places to compare: ratio unknown
    flat = in_memory_order(local)
    if flat.numel() <= most:
        return flat
    return flat.unfold(0, RUN, _stride(flat.numel(), local.shape[-1], most // RUN))


@lru_cache(maxsize=1024)
def _stride(numel: int, row: int, runs: int) -> int:
    """Distance of at most ``runs`` runs that spread evenly over rows and columns.

    From one row to the next the runs shift by about 0.618 of their distance, or, where that is longer than a row, by
    0.618 of a row: the golden ratio leaves no column out for long.
    """
    least = -(-numel // runs)
    if least >= row:
        stride = least // row * row + int(0.618 * row)
        return stride if stride >= least else stride + row
    return min(range(least, 2 * least), key=lambda stride: abs(row / stride % 1 - 0.618))
