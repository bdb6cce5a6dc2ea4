"""How far one optimizer step moves each parameter, from a strided sample of its entries.

Shape legend: N = number of parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from gradguard.functional import in_memory_order, norms, norms_over_mesh

RUN = 16  # neighbouring entries that are sampled together: one line of the cache
PER_PARAMETER = 1 << 13  # entries: a ratio of norms from that many is good to a few per cent
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
