"""How far the weights move, at every optimizer step: from a short stretch of a few of them.

Shape legend: K = entries in the sample, 4,096 at most; n = finished steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, final

import torch
from torch import Tensor

from gradguard.functional import in_memory_order

WEIGHTS = 4  # of which a sample is taken, spread evenly over the depth: each one more costs 1 % of a clipping's time
LENGTH = 1024  # entries of each that lie side by side: one launch copies them all, at the speed of the memory
STEPS = 16  # whose samples wait to be compared together: 512 KB


class Moved(NamedTuple):
    """What some steps did.

    Attributes:
        rows: n, the number that each step was given.
        ratios: [n], on the device; norm of the sample's change over its norm before, NaN where that is 0.
    """

    rows: list[int]
    ratios: Tensor


@final
class Movement:
    r"""Measures by how much each step changes the weights, relative to what they were.

    .. math:: m = \frac{\lVert w' - w \rVert_2}{\lVert w \rVert_2} \text{ over a fixed sample } w \text{ of the weights}

    The sample is the same at every step: 1,024 neighbouring entries from the middle of each of 4 weights, spread over
    the depth; a smaller weight as a whole. It is copied before and after the step, and 16 steps are compared at once.
    It tells a change of pace, not one weight from another: for that there is :class:`UpdateProbe`.

    Args:
        params: the parameters, in the order of the model.
        is_weight: whether each is a weight matrix; where none is, all parameters will do. Sampled are those of one
            device and dtype, the most frequent, and none that is sharded (DTensor), sparse or otherwise unusual.

    Host sync: none. Mutates: nothing.

    >>> weight = torch.nn.Parameter(torch.tensor([[3.0, 4.0]]))
    >>> movement = Movement([weight], [True])
    >>> movement.before()
    >>> weight.data.add_(1.0)
    tensor([[4., 5.]])
    >>> movement.after(0)
    >>> movement.take()
    Moved(rows=[0], ratios=tensor([0.2828]))
    """

    def __init__(self, params: Sequence[Tensor], is_weight: Sequence[bool]) -> None:
        self.given, self.is_weight = params, is_weight
        self.rows: list[int] = []  # of the steps that are finished and not compared
        self.done: list[Moved] = []
        self.begun = False
        self.samples = torch.zeros(0, device="cpu")
        self._attach()

    def before(self) -> None:
        """Copy the sample: the step is about to be made. One that was begun and never finished is forgotten."""
        if self._is_swapped():
            self._compare()
            self._attach()
        if self.params:
            torch.cat(self.views, out=self.slots[len(self.rows)][0])
            self.begun = True

    def after(self, row: int) -> None:
        """Copy it again: the step was made. ``row`` is what to call it."""
        if not self.begun:
            return
        self.begun = False
        if self._is_swapped() and not self._find_again():
            return  # another model, on another device or in another precision: nothing to compare
        torch.cat(self.views, out=self.slots[len(self.rows)][1])
        self.rows.append(row)
        if len(self.rows) == STEPS:
            self._compare()

    def take(self) -> Moved | None:
        """Give what the steps since the last call did, or None where there is nothing to sample."""
        self._compare()
        done, self.done, self.begun = self.done, [], False
        if not self.params:
            return None
        if not done:
            return Moved([], self.samples.new_zeros(0))
        device = done[-1].ratios.device  # of a model that was moved in between
        return Moved([row for one in done for row in one.rows], torch.cat([one.ratios.to(device) for one in done]))

    def _attach(self) -> None:
        self.params = _chosen(self.given, self.is_weight)
        self._view(_views(self.params))
        if self.views:
            like, shape = self.views[0], (STEPS, 2, sum(view.numel() for view in self.views))
            if (self.samples.shape, self.samples.dtype, self.samples.device) != (shape, like.dtype, like.device):
                self.samples = torch.zeros(shape, dtype=like.dtype, device=like.device)
                self.slots = [(was, then) for was, then in self.samples.unbind()]

    def _view(self, views: list[Tensor]) -> None:
        self.views, self.kinds, self.places = views, list(map(_kind, views)), [p.data_ptr() for p in self.params]

    def _is_swapped(self) -> bool:
        """Whether the weights lie elsewhere now: ``p.data = ...`` gives the same parameter another memory."""
        return list(map(Tensor.data_ptr, self.params)) != self.places

    def _find_again(self) -> bool:
        """Look where they lie after the step, as long as they are the same ones; slots of earlier steps stay."""
        params = _chosen(self.given, self.is_weight)
        views = _views(params)
        if list(map(id, params)) != list(map(id, self.params)) or list(map(_kind, views)) != self.kinds:
            return False
        self._view(views)
        return True

    def _compare(self) -> None:
        """Compare the steps that are finished; all slots at once, so that the numbers do not depend on how many are."""
        if not self.rows:
            return
        wide = self.samples.to(torch.float64 if self.samples.dtype is torch.float64 else torch.float32)
        was, moved = wide[:, 0], wide[:, 1] - wide[:, 0]
        norm, by = (torch.linalg.vector_norm(part, dim=1) for part in (was, moved))
        ratios = torch.where(norm > 0, by / norm, torch.nan)
        self.done.append(Moved(self.rows, ratios[: len(self.rows)]))
        self.rows = []


def _chosen(params: Sequence[Tensor], is_weight: Sequence[bool]) -> list[Tensor]:
    """Choose what to sample: a few, spread evenly, of one device and dtype."""
    usable = [(p, weight) for p, weight in zip(params, is_weight, strict=True) if _is_plain(p)]
    all_will_do = not any(is_weight)
    found = [p for p, weight in usable if weight or all_will_do]
    kinds = Counter((p.device, p.dtype) for p in found)
    found = [p for p in found if (p.device, p.dtype) == kinds.most_common(1)[0][0]]
    last = len(found) - 1
    return found if last < WEIGHTS else [found[i * last // (WEIGHTS - 1)] for i in range(WEIGHTS)]


def _is_plain(param: Tensor) -> bool:
    """Whether entries that lie side by side in memory can be viewed."""
    inner = param.detach()
    if type(inner) is not Tensor or inner.layout is not torch.strided or not inner.numel():
        return False
    floats = inner.is_floating_point() or inner.is_complex()
    return floats and in_memory_order(inner).data_ptr() == inner.data_ptr()


def _views(params: Sequence[Tensor]) -> list[Tensor]:
    return list(map(_stretch, params))


def _kind(view: Tensor) -> tuple[object, ...]:
    return view.shape, view.dtype, view.device


def _stretch(param: Tensor) -> Tensor:
    flat = in_memory_order(param.detach())
    if flat.is_complex():
        flat = torch.view_as_real(flat).flatten()
    start = max(0, flat.numel() - LENGTH) // 2
    return flat[start : start + LENGTH]
