"""Keeping the total norm in a band."""

from __future__ import annotations

from typing import Any, final

from gradguard.arguments import number
from gradguard.clip.base import AbstractRescaler
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.functional import Measurement, band_factor
from gradguard.functional.number import scalar


@final
class NormBand(AbstractRescaler):
    r"""Brings the total norm down to ``max_norm`` and up to ``min_norm``; a gradient of zero stays zero.

    .. math:: g \leftarrow g \cdot \frac{\mathrm{clamp}(\|g\|, l, h)}{\|g\|}

    It lifts gradients that are too small, which SGD can't do by itself. Not with Adam and its relatives: they divide
    the scale of the gradient out again. Not near the end of a run, where small gradients are right.

    Args:
        min_norm: l >= 0; 0 lifts nothing.
        max_norm: h >= l, > 0; ``inf`` limits nothing.

    Raises:
        ValueError: an argument out of range.

    Source: the lower limit is that of normalised gradient descent, Hazan, Levy & Shalev-Shwartz 2015.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([0.03, 0.04])
    >>> NormBand(0.5, 1.0).clip_([weight]).norm, weight.grad
    (tensor(0.0500), tensor([0.3000, 0.4000]))
    """

    def __init__(self, min_norm: float, max_norm: float) -> None:
        super().__init__()
        self.min_norm = number("NormBand", "min_norm", min_norm, least=0)
        self.max_norm = number("NormBand", "max_norm", max_norm, above=0)
        if min_norm > max_norm:
            raise ValueError(f"NormBand needs min_norm <= max_norm, got {min_norm!r} and {max_norm!r}.")

    def bind(self, binding: Binding) -> Any:
        """Nothing is learnt."""
        return ()

    def rule(self, measurement: Measurement, state: Any) -> tuple[AbstractFactors, Any]:
        """Bring the total norm into the band."""
        factor = band_factor(scalar(measurement.total), self.min_norm, self.max_norm)
        return OneFactor(measurement, factor, self.max_norm), state
