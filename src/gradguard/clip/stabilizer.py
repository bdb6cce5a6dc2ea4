"""Giving the gradients a norm that follows their own past."""

from __future__ import annotations

from typing import NamedTuple, Optional, final

from gradguard.arguments import patience, share
from gradguard.clip.base import AbstractRescaler
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.clip.state import observed, zero
from gradguard.functional import Level, Measurement, new_level, target_factor, update_level
from gradguard.functional.number import Number, divide, is_finite, smaller, sqrt, square, where

HIGH, LOW = 2.0, 1 / 3  # times the root of the mean square, which follows a rise faster than a fall: off the level
EARLY = 10  # observations before that is judged


class StabilizerState(NamedTuple):
    """Exponential means of the norm and of its square, from 0, and how many norms are in them."""

    seen: Number
    mean: Number
    square: Number
    level: Level


@final
class GradientStabilizer(AbstractRescaler):
    r"""Replaces the total norm R by a ratio of its own running moments, which no spike can drive far from 1.

    .. math:: m_t = \gamma_1 m_{t-1} + (1 - \gamma_1) R_t, \quad v_t = \gamma_2 v_{t-1} + (1 - \gamma_2) R_t^2, \quad
        g \leftarrow \frac{g}{R_t} \cdot \frac{m_t}{\sqrt{v_t}}

    The gradient keeps its direction and loses its scale: norms are about 1 from then on, and the learning rate has to
    be found anew. In the one published comparison it came out first; see the documentation's tables for ours.

    Args:
        gamma1: decay of the mean, in [0, 1).
        gamma2: decay of the mean square, in [0, 1).
        bias_correction: whether both means are those of what was seen so far. The paper's start from 0, so that the
            first steps are up to 12 times too long: ``False`` is its rule.
        reanchor: after that many steps in a row at more than twice or less than a third of the usual norm, both means
            begin anew; None, as in the paper, for never.

    Raises:
        ValueError: an argument out of range.

    Source: "GradientStabilizer", arXiv 2502.17055v3, algorithm 1.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(2))
    >>> weight.grad = torch.tensor([30.0, 40.0])
    >>> _ = GradientStabilizer().clip_([weight])
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """

    def __init__(
        self,
        *,
        gamma1: float = 0.6,
        gamma2: float = 0.999,
        bias_correction: bool = True,
        reanchor: Optional[int] = 40,  # noqa: UP045  # LightningCLI reads it on every Python
    ) -> None:
        super().__init__()
        self.gamma1 = share("GradientStabilizer", "gamma1", gamma1)
        self.gamma2 = share("GradientStabilizer", "gamma2", gamma2)
        self.bias_correction = bool(bias_correction)
        self.reanchor = patience("GradientStabilizer", reanchor)

    def bind(self, binding: Binding) -> StabilizerState:
        """Begin with both means at 0."""
        nothing = zero(binding)
        return StabilizerState(nothing, nothing, nothing, new_level(nothing))

    def changes(self, state: StabilizerState) -> Number:
        """Say how often the statistic began anew."""
        return state.level.changes

    def rule(self, measurement: Measurement, state: StabilizerState) -> tuple[AbstractFactors, StabilizerState]:
        """Give the gradients the norm of the ratio."""
        norm = observed(measurement)
        counts, level, changed = is_finite(norm), state.level, False
        if self.reanchor is not None:
            usual = sqrt(self._corrected(state)[1])
            side = where(norm > HIGH * usual, 1.0, where(norm < LOW * usual, -1.0, 0.0))
            level, changed = update_level(level, norm, where(state.seen >= EARLY, side, 0.0), patience=self.reanchor)
        seen = state.seen + 1
        mean = self.gamma1 * state.mean + (1 - self.gamma1) * norm
        mean_square = self.gamma2 * state.square + (1 - self.gamma2) * square(norm)
        new = StabilizerState(
            where(counts, seen, state.seen),
            where(counts, mean, state.mean),
            where(counts, mean_square, state.square),
            level,
        )
        if self.reanchor is not None:
            new = self._anchored(new, changed)
        mean, mean_square = self._corrected(new)
        target = divide(mean, sqrt(mean_square))
        return OneFactor(measurement, target_factor(norm, target), target), new

    def _corrected(self, state: StabilizerState) -> tuple[Number, Number]:
        weight1, weight2 = self._weights(state.seen)
        return divide(state.mean, weight1), divide(state.square, weight2)

    def _weights(self, seen: Number) -> tuple[Number, Number]:
        """Give the share that what was seen has in both means: the rest is the 0 that they started from."""
        return (1 - self.gamma1**seen, 1 - self.gamma2**seen) if self.bias_correction else (1.0, 1.0)

    def _anchored(self, state: StabilizerState, changed: Number) -> StabilizerState:
        """Begin anew from the newest norms, as if there had been no others."""
        (weight1, weight2), recent = self._weights(state.seen), state.level.recent
        # A variance as large as that is what is left of the old level.
        mean_square = square(recent.mean) + smaller(recent.var, square(recent.mean) / 2)
        return state._replace(
            mean=where(changed, recent.mean * weight1, state.mean),
            square=where(changed, mean_square * weight2, state.square),
        )
