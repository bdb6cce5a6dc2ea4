"""Clipping each tensor at what its own norms were so far."""

from __future__ import annotations

from typing import NamedTuple, Optional, final

import torch
from torch import Tensor

from gradguard.arguments import number, patience, share, whole_number
from gradguard.clip.base import AbstractClipper
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, FactorEach
from gradguard.clip.state import zero
from gradguard.functional import Level, Measurement, limit_factor, new_level, update_level
from gradguard.functional.number import Number, as_tensor, precise

FAR = 0.5  # a factor below it is off the level


class AdaGCState(NamedTuple):
    """Of each of n parameters: norms seen, the usual clipped norm, and how the newest are to it."""

    seen: Tensor
    gamma: Tensor
    level: Level


@final
class AdaGC(AbstractClipper):
    r"""Clips the norm of each gradient at a multiple of an exponential mean of its own clipped norms.

    .. math:: h_i = \min\Big(1, \frac{\lambda_{rel} \gamma_i}{\|g_i\|}\Big), \qquad
        \gamma_i \leftarrow \beta \gamma_i + (1 - \beta) \|h_i g_i\|

    In the first ``warmup`` steps the total norm is clipped at :math:`\lambda_{abs}`, and :math:`\gamma_i` is the least
    clipped norm so far. Each parameter has a warm-up of its own, which begins with its first gradient that is not zero:
    in the paper's rule (``floor=0, reanchor=None``) one whose gradient was zero once in the warm-up, as that of a LoRA
    factor is, stays frozen for ever.

    For large models, where single layers spike. Not for a handful of parameters: :class:`ZClip` clips less of what is
    harmless.

    Args:
        relative: :math:`\lambda_{rel}` > 0.
        absolute: :math:`\lambda_{abs}` > 0, the total norm in the warm-up; ``inf`` for no limit.
        beta: decay, in [0, 1).
        warmup: steps, >= 1.
        floor: no parameter is clipped below that norm, >= 0; with 0, zero gradients count as norms.
        reanchor: after that many steps on end clipped to less than half, :math:`\gamma_i` begins anew from the newest
            norms; None for never: a tenfold norm is then clipped for some 2,000 steps.

    Raises:
        ValueError: an argument out of range.

    Source: Wang et al. 2025, "AdaGC: improving training stability for large language model pretraining", arXiv
    2502.11034. Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> clipper = AdaGC(warmup=2)
    >>> for norm in (0.5, 0.4, 8.0):
    ...     weight.grad = torch.tensor([norm])
    ...     _ = clipper.clip_([("weight", weight)])
    >>> weight.grad
    tensor([0.4200])
    """

    per_tensor = True

    def __init__(
        self,
        *,
        relative: float = 1.05,
        absolute: float = 1.0,
        beta: float = 0.98,
        warmup: int = 100,
        floor: float = 1e-6,
        reanchor: Optional[int] = 40,  # noqa: UP045  # LightningCLI reads it on every Python
    ) -> None:
        super().__init__()
        self.relative = number("AdaGC", "relative", relative, above=0)
        self.absolute = number("AdaGC", "absolute", absolute, above=0)
        self.beta, self.warmup = share("AdaGC", "beta", beta), whole_number("AdaGC", "warmup", warmup)
        self.floor = number("AdaGC", "floor", floor, least=0)
        self.reanchor = patience("AdaGC", reanchor)

    def bind(self, binding: Binding) -> AdaGCState:
        """Begin with nothing known of any parameter."""
        zeros = as_tensor(zero(binding)).expand(len(binding.names)).clone()
        return AdaGCState(zeros, zeros.clone(), new_level(zeros))

    def changes(self, state: AdaGCState) -> Number:
        """Say how often the level of a parameter began anew, of all together."""
        return state.level.changes.sum()

    def rule(self, measurement: Measurement, state: AdaGCState) -> tuple[AbstractFactors, AdaGCState]:
        """Limit each norm."""
        norms = precise(measurement.norms)
        counts = norms.square().isfinite() & (norms > 0 if self.floor else _present(measurement))
        early = state.seen < self.warmup
        limit = (self.relative * state.gamma).clamp(min=self.floor)
        jointly = limit_factor(precise(measurement.total), self.absolute)
        factors = torch.where(early, jointly, limit_factor(norms, limit))
        clipped = norms * factors
        least = torch.where(state.seen > 0, torch.minimum(state.gamma, clipped), clipped)
        gamma = torch.where(early, least, torch.lerp(clipped, state.gamma, self.beta))
        gamma, level = torch.where(counts, gamma, state.gamma), state.level
        if self.reanchor is not None:
            seen = torch.where(counts, norms, torch.nan)
            level, changed = update_level(level, seen, ~early & (factors < FAR), patience=self.reanchor)
            gamma = torch.where(changed, level.recent.mean, gamma)
        thresholds = torch.where(early, torch.inf, limit)
        return FactorEach(measurement, factors, thresholds), AdaGCState(state.seen + counts, gamma, level)


def _present(measurement: Measurement) -> Tensor:
    present = torch.ones_like(measurement.norms, dtype=torch.bool)
    for position in measurement.missing:  # filled in place: a list of positions would be copied to the device
        present[position] = False
    return present
