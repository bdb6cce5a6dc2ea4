"""How far one optimizer step moves each parameter, from a strided sample of its entries.

Shape legend: N = number of parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from gradguard.functional import in_memory_order, norms, norms_over_mesh

PER_PARAMETER = 1 << 16  # entries: a norm ratio from that many is good to about 1 %
BUDGET = 1 << 24  # entries of all parameters together: 64 MB of float32


class Update(NamedTuple):
    """What one step did.

    Attributes:
        weight_norms: [N], norm of each whole parameter before the step.
        ratios: [N], norm of the change over norm of the weights, both over the sample; NaN where the weights are zero.
    """

    weight_norms: Tensor
    ratios: Tensor


@final
class UpdateProbe:
    """Looks at the parameters before and after one step. Keeps a sample of at most 64 MB in between, no copy of them.

    A parameter of at most 65,536 entries is compared whole; of a larger one every k-th entry is, with k prime to the
    length of its rows, so that no column is missed.

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
        before, after = self.before, self._samples()
        moved = norms([b.to(a.dtype) - a for b, a in zip(before, after, strict=True)])
        moved, were = (norms_over_mesh(part, self.params) for part in (moved, norms(before)))
        self.before = []
        return Update(self.weight_norms, torch.where(were > 0, moved / were, torch.nan))

    @torch.no_grad()
    def _samples(self) -> list[Tensor]:
        most = max(1, min(PER_PARAMETER, BUDGET // max(1, len(self.params))))
        return [_sample(p.detach(), most) for p in self.params]


def _sample(param: Any, most: int) -> Tensor:
    """View every k-th entry of what this rank holds."""
    local: Tensor = param.to_local() if hasattr(param, "to_local") else param
    flat = in_memory_order(local)
    stride = math.ceil(flat.numel() / most)
    row = local.shape[-1] if local.ndim else 1
    while stride > 1 and math.gcd(stride, row) > 1:
        stride += 1
    return flat[::stride] if stride > 1 else flat
