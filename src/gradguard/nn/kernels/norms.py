"""The norms of rows that kernels take, and their way back by hand.

With x̂ = x / sqrt(sum(x^2) + S eps), an RMS norm is sqrt(S) g x̂, and with p = sqrt(S) g dy / sqrt(sum(x^2) + S eps):

    dL/dx = p - x̂ sum(p x̂)                          dL/dg = sqrt(S) dy x̂

Shape legend: N = rows, S = width of what is normed, K = groups.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, final

import torch
from torch import Tensor

_back = torch.ops.aten.native_layer_norm_backward.default


class AbstractNorm(ABC):
    """A norm with a gain, and maybe a shift.

    Args:
        gain: [S].
        shift: [S], or None.
        eps: added to the variance, or the mean square.
        dtype: of what is normed.

    Attributes:
        statistics: how many of them the way back wants.
    """

    statistics: ClassVar[int]

    def __init__(self, gain: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype) -> None:
        self.gain, self.shift, self.eps = gain.to(dtype), None if shift is None else shift.to(dtype), eps
        self.shape = list(gain.shape)

    def like_statistics(self, rows: int) -> list[Tensor]:
        """Empty tensors with the shapes of the statistics of so many rows."""
        return [self.gain.new_empty(rows, 1) for _ in range(self.statistics)]

    @abstractmethod
    def __call__(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """The normed rows, and their statistics."""

    def add_to(self, out_NS: Tensor, raw_NS: Tensor) -> Sequence[Tensor]:
        """Add the normed rows to ``out``; give their statistics."""
        normed, *statistics = self(raw_NS)
        out_NS.add_(normed)
        return statistics

    @abstractmethod
    def prepared(self, raw_NS: Tensor, statistics: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What the way back wants, [N, ...] each: all that does not depend on gradients."""

    @abstractmethod
    def back(self, d_NS: Tensor, *prepared: Tensor) -> Tensor:
        """Gradient of what was normed."""

    @abstractmethod
    def back_to_all(self, d_NS: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Gradients of what was normed, of the gain, and of the shift."""


@final
class LayerNorm(AbstractNorm):
    """Torch's own, gain and shift within; statistics are the mean and the reciprocal deviation."""

    statistics = 2

    def __call__(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """Norm rows."""
        found: tuple[Tensor, ...] = torch.native_layer_norm(raw_NS, self.shape, self.gain, self.shift, self.eps)
        return found

    def prepared(self, raw_NS: Tensor, statistics: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What torch's backward pass takes."""
        return raw_NS, *statistics

    def back(self, d_NS: Tensor, *prepared: Tensor) -> Tensor:
        """Go back to the rows."""
        raw, mean, scale = prepared
        found: Tensor = _back(d_NS, raw, self.shape, mean, scale, self.gain, self.shift, [True, False, False])[0]
        return found

    def back_to_all(self, d_NS: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Go back to rows, gain and shift."""
        raw, mean, scale = prepared
        mask = [True, True, self.shift is not None]
        of_raw, of_gain, of_shift = _back(d_NS, raw, self.shape, mean, scale, self.gain, self.shift, mask)
        return of_raw, of_gain, of_shift


class AbstractGainedNorm(AbstractNorm):
    """A norm without a gain, by which what comes out of it is multiplied; a shift is added on the way there alone."""

    @abstractmethod
    def unit(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """New normed rows without the gain, and their statistics."""

    def __call__(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """Norm rows."""
        unit, *statistics = self.unit(raw_NS)
        unit.mul_(self.gain)
        return unit if self.shift is None else unit.add_(self.shift), *statistics

    def add_to(self, out_NS: Tensor, raw_NS: Tensor) -> Sequence[Tensor]:
        """The gain and the sum in one call."""
        unit, *statistics = self.unit(raw_NS)
        out_NS.addcmul_(unit, self.gain)
        return statistics


@final
class RMSNorm(AbstractGainedNorm):
    """By the root of the mean square. Its statistic is sqrt(sum(x^2) + S eps), and sqrt(S) is in the gain."""

    statistics = 1

    def __init__(self, gain: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype) -> None:
        super().__init__(gain, shift, eps, dtype)
        self.root = math.sqrt(len(gain))
        self.gain = self.gain * self.root
        self.least = torch.full((), self.root * math.sqrt(eps), dtype=dtype, device=gain.device)

    def unit(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """Divide by the length, as eps makes it."""
        length = torch.linalg.vector_norm(raw_NS, dim=-1, keepdim=True).hypot_(self.least)
        return raw_NS / length, length

    def prepared(self, raw_NS: Tensor, statistics: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """The unit rows, and by what p is more than dy."""
        (length,) = statistics
        return raw_NS / length, self.gain / length

    def back(self, d_NS: Tensor, *prepared: Tensor) -> Tensor:
        """See the head of this file."""
        unit, factor = prepared
        p = d_NS * factor
        return p.addcmul_(unit, (p * unit).sum(-1, keepdim=True), value=-1)

    def back_to_all(self, d_NS: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """See the head of this file."""
        return self.back(d_NS, *prepared), (d_NS * prepared[0]).sum(0).mul_(self.root), None


@final
class GroupNorm(AbstractGainedNorm):
    """A layer norm of each of K blocks of a row; statistics are the means and the reciprocal deviations, [N, K, 1]."""

    statistics = 2

    def __init__(self, gain: Tensor, shift: Tensor | None, eps: float, dtype: torch.dtype, groups: int) -> None:
        super().__init__(gain, shift, eps, dtype)
        self.groups, self.size = groups, len(gain) // groups
        self.gain_KS = self.gain.view(groups, self.size)

    def like_statistics(self, rows: int) -> list[Tensor]:
        """One for each group."""
        return [self.gain.new_empty(rows, self.groups, 1) for _ in range(self.statistics)]

    def unit(self, raw_NS: Tensor) -> tuple[Tensor, ...]:
        """Norm each group."""
        grouped = raw_NS.view(len(raw_NS), self.groups, self.size)
        normed, mean, scale = torch.native_layer_norm(grouped, [self.size], None, None, self.eps)
        return normed.view(raw_NS.shape), mean, scale

    def prepared(self, raw_NS: Tensor, statistics: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """What torch's backward pass takes."""
        return raw_NS.view(len(raw_NS), self.groups, self.size), *statistics

    def back(self, d_NS: Tensor, *prepared: Tensor) -> Tensor:
        """Go back to the rows."""
        raw, mean, scale = prepared
        d_unit = d_NS.view(raw.shape) * self.gain_KS
        found: Tensor = _back(d_unit, raw, [self.size], mean, scale, None, None, [True, False, False])[0]
        return found.view(d_NS.shape)

    def back_to_all(self, d_NS: Tensor, *prepared: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Go back to rows and gain."""
        raw, mean, scale = prepared
        unit = (raw - mean).mul_(scale).view(d_NS.shape)
        return self.back(d_NS, *prepared), unit.mul_(d_NS).sum(0), None
