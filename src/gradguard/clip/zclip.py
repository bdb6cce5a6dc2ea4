"""Clipping total norms that are far above what is usual."""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple, Optional, final

from gradguard.arguments import number, patience
from gradguard.clip.base import AbstractClipper
from gradguard.clip.baseline import AbstractBaseline, Ema, Usual
from gradguard.clip.binding import Binding
from gradguard.clip.factors import AbstractFactors, OneFactor
from gradguard.clip.state import observed, zero
from gradguard.clip.target import AbstractTarget, Reciprocal
from gradguard.functional import Level, Measurement, limit_factor, new_level, update_level
from gradguard.functional.number import Number, clamp, divide, is_finite, larger, scalar, where


class ZClipState(NamedTuple):
    """What is usual, and whether the newest norms still are."""

    baseline: Any
    level: Level


@final
class ZClip(AbstractClipper):
    r"""Clips a total norm whose z-score is too high, and leaves all others alone: the choice where no limit is known.

    It cuts outliers off. A learning rate that is far too high makes no outliers: that takes a limit that binds, as
    :class:`NormClip`'s.

    .. math:: z = \frac{\|g\| - \mu}{\sigma + \varepsilon}, \qquad
        z > z_\theta: \quad g \leftarrow g \cdot \frac{h}{\|g\| + \varepsilon}, \quad
        h = \mu + \frac{z_\theta^2}{z} \sigma

    It is made of parts: the ``baseline`` says what :math:`\mu` and :math:`\sigma` are (:class:`Ema`, or
    :class:`MedianMad`, which outliers hardly move), the ``target`` which norm h a spike is given (:class:`Reciprocal`,
    :class:`ToMean` or :class:`ToThreshold`). The paper's rule is ``ZClip(sigma_floor=0, reanchor=None)``.

    Args:
        z_threshold: :math:`z_\theta` > 0.
        baseline: learns what is usual; it is fed the clipped norm, where it does not ask for the raw one.
        target: says which norm a spike is given.
        max_norm: no step gets a longer gradient, in the warm-up either; None for no such limit.
        clip_factor: the target is multiplied by it, in (0, 1].
        learn_from_spikes: whether a spike enters the baseline.
        sigma_floor: :math:`\sigma` is at least that share of :math:`\mu`, so that norms which hardly vary are not
            clipped for varying a little more; 0 as in the paper.
        reanchor: after that many spikes on end the baseline begins anew from these norms: they are a new level, which
            the paper's rule (None) clips for ever.
        eps: added to :math:`\sigma` and to the norm, >= 0.

    Raises:
        ValueError: an argument out of range.
        TypeError: a baseline or target that is none.

    Source: Kumar et al. 2025, "ZClip: adaptive spike mitigation for LLM pre-training", arXiv 2504.02507.
    Host sync: none. Mutates: the gradients, in ``clip_``.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> clipper = ZClip()
    >>> for norm in [0.9, 1.1] * 20 + [50.0]:
    ...     weight.grad = torch.tensor([norm])
    ...     result = clipper.clip_([weight])
    >>> result.norm, weight.grad < 1.01
    (tensor(50.), tensor([True]))
    """

    standard: ClassVar = {"baseline": "Ema()", "target": "Reciprocal()"}

    def __init__(
        self,
        z_threshold: float = 2.5,
        *,
        baseline: Optional[AbstractBaseline] = None,  # noqa: UP045  # LightningCLI reads these on every Python
        target: Optional[AbstractTarget] = None,  # noqa: UP045
        max_norm: Optional[float] = None,  # noqa: UP045
        clip_factor: float = 1.0,
        learn_from_spikes: bool = True,
        sigma_floor: float = 0.01,
        reanchor: Optional[int] = 40,  # noqa: UP045
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        self.z_threshold = number("ZClip", "z_threshold", z_threshold, above=0)
        self.baseline = _part("baseline", baseline, AbstractBaseline) or Ema()
        self.target = _part("target", target, AbstractTarget) or Reciprocal()
        self.max_norm = None if max_norm is None else number("ZClip", "max_norm", max_norm, above=0)
        self.clip_factor = number("ZClip", "clip_factor", clip_factor, above=0)
        if clip_factor > 1:
            raise ValueError(f"ZClip needs 0 < clip_factor <= 1, got {clip_factor!r}.")
        self.learn_from_spikes = bool(learn_from_spikes)
        self.sigma_floor = number("ZClip", "sigma_floor", sigma_floor, least=0)
        self.reanchor = patience("ZClip", reanchor)
        self.eps = number("ZClip", "eps", eps, least=0)

    def bind(self, binding: Binding) -> ZClipState:
        """Begin with nothing known."""
        nothing = zero(binding)
        return ZClipState(self.baseline.start(nothing), new_level(nothing))

    def changes(self, state: ZClipState) -> Number:
        """Say how often the baseline began anew."""
        return state.level.changes

    def rule(self, measurement: Measurement, state: ZClipState) -> tuple[AbstractFactors, ZClipState]:
        """Limit the total norm where it is a spike."""
        norm, seen = scalar(measurement.total), observed(measurement)
        mean, sigma, ready = self.baseline.usual(state.baseline)
        usual = Usual(mean, larger(sigma, self.sigma_floor * mean) if self.sigma_floor else sigma, ready)
        z = divide(norm - mean, usual.sigma + self.eps)
        spike = ready & (z > self.z_threshold)
        target = self.target.norm(usual, z, self.z_threshold) * self.clip_factor
        most = math.inf if self.max_norm is None else self.max_norm
        limit = clamp(where(spike, target, math.inf), high=most)
        factor = where(norm > limit, limit_factor(norm, limit, eps=self.eps), 1.0)
        begins = clamp(where(ready, mean + self.z_threshold * usual.sigma, math.inf), high=most)
        instead = seen if self.baseline.takes_raw else target
        learnt = where(spike, instead if self.learn_from_spikes else math.nan, seen)
        learnt = where(is_finite(seen), learnt, math.nan)
        baseline, level = self.baseline.update(state.baseline, learnt), state.level
        if self.reanchor is not None:
            level, changed = update_level(level, seen, spike, patience=self.reanchor)
            baseline = self.baseline.begin_anew(baseline, level.recent, changed)
        return OneFactor(measurement, factor, begins), ZClipState(baseline, level)


def _part(name: str, part: Any, kind: type) -> Any:
    if part is not None and not isinstance(part, kind):
        hint = f" Write {part.__name__}()." if isinstance(part, type) else ""
        raise TypeError(f"ZClip needs {name} to be an {kind.__name__} object, got {part!r}.{hint}")
    return part
