"""Down to which norm a spike is clipped: the three answers that ZClip's paper compares."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

from gradguard.clip.baseline import Usual
from gradguard.functional.number import Number, divide


class AbstractTarget(ABC):
    """Says which norm a spike is given, from what is usual and how far the spike is from it."""

    @abstractmethod
    def norm(self, usual: Usual, z: Number, z_threshold: float) -> Number:
        """Give the norm; ``z > z_threshold``. Host sync: none."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@final
class Reciprocal(AbstractTarget):
    r"""The farther off a spike is, the closer to the mean it is brought: :math:`\mu + (z_\theta^2 / z) \sigma`."""

    def norm(self, usual: Usual, z: Number, z_threshold: float) -> Number:
        """Give the norm."""
        return usual.mean + divide(z_threshold**2, z) * usual.sigma


@final
class ToMean(AbstractTarget):
    r"""Every spike is brought to the mean, :math:`\mu`."""

    def norm(self, usual: Usual, z: Number, z_threshold: float) -> Number:
        """Give the norm."""
        return usual.mean


@final
class ToThreshold(AbstractTarget):
    r"""Every spike is brought to where spikes begin, :math:`\mu + z_\theta \sigma`."""

    def norm(self, usual: Usual, z: Number, z_threshold: float) -> Number:
        """Give the norm."""
        return usual.mean + z_threshold * usual.sigma
