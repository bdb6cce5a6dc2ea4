"""Vanishing and exploding over the depth of the network."""

from __future__ import annotations

import math
from typing import NamedTuple, final

import torch

from gradguard.detect.base import AbstractDetector, Persistence
from gradguard.detect.block import Block, Role
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.profile import layers_of, profile, trend
from gradguard.detect.symptom import Symptom

TINY = 1e-45  # stands for zero in a logarithm: the smallest float32


class _Fit(NamedTuple):
    """The steepest profile so far."""

    decades: float
    r2: float
    role: Role
    rms: dict[str, float]


class _DepthTrend:
    r"""Says since when the gradient changes steadily, by orders of magnitude, from the last layer to the first.

    With :math:`g_l` the root mean square of the gradient entries of layer :math:`l` and :math:`x_l \in [0, 1]` its
    place in the depth, a line :math:`\log_{10} g_l = a + b x_l` is fitted at each step. The step is sick where
    :math:`\pm b` reaches the limit and the line explains ``min_r2`` of the variance.
    """

    def __init__(
        self,
        direction: int,
        *,
        decades: float,
        bias_decades: float,
        min_r2: float,
        min_layers: int,
        warmup: int,
        patience: int,
    ) -> None:
        if not (decades > 0 and bias_decades > 0 and 0 <= min_r2 < 1 and min_layers >= 3 and warmup >= 0):
            raise ValueError(
                "A depth detector needs decades > 0, bias_decades > 0, 0 <= min_r2 < 1, min_layers >= 3 and warmup "
                f">= 0, got {decades=}, {bias_decades=}, {min_r2=}, {min_layers=}, {warmup=}."
            )
        self.direction = direction
        self.limits = {Role.WEIGHT: decades, Role.BIAS: bias_decades}
        self.min_r2, self.min_layers, self.warmup = min_r2, min_layers, warmup
        self.persistence = Persistence(patience)
        self.counted = 0
        self.steepest: _Fit | None = None

    def observe(self, block: Block) -> None:
        """Take in the next steps; overflow steps and steps with a NaN or Inf are passed over."""
        fits = []
        judged = ~block.overflow & block.totals.isfinite() & (block.totals > 0)
        sick = torch.zeros_like(judged)
        for role, limit in self.limits.items():
            layers = layers_of(block.layout, role)
            if len(layers) >= self.min_layers:
                rms = profile(block, role)
                decades, r2 = trend(rms)
                over = (self.direction * decades >= limit) & (r2 >= self.min_r2)
                fits.append((role, layers, rms, decades, r2, over))
                sick |= over
        if not fits:
            return
        for row, (step, counts, is_sick) in enumerate(
            zip(block.steps.tolist(), judged.tolist(), sick.tolist(), strict=True)
        ):
            self.counted += counts
            if not counts or self.counted <= self.warmup:
                continue
            self.persistence.observe(step, is_sick)
            for role, layers, rms, decades, r2, over in fits if is_sick else ():
                excess = abs(float(decades[row])) / self.limits[role]
                if over[row] and (self.steepest is None or excess > self._excess(self.steepest)):
                    by_layer = dict(zip(layers, rms[row].tolist(), strict=True))
                    self.steepest = _Fit(float(decades[row]), float(r2[row]), role, by_layer)

    def _excess(self, fit: _Fit) -> float:
        return abs(fit.decades) / self.limits[fit.role]

    def finding(self, optimizer: str, symptom: Symptom, explanation: str) -> tuple[Finding, ...]:
        """Say it, if it persisted: the profile shown is the steepest one."""
        spell, fit = self.persistence.spell, self.steepest
        if spell is None or fit is None:
            return ()
        rms = {layer: value for layer, value in fit.rms.items() if not math.isnan(value)}
        (first, at_first), *_, (last, at_last) = rms.items()
        per_layer = abs(fit.decades) / (len(fit.rms) - 1)
        half = self.limits[fit.role] / 2
        away = {k: self.direction * math.log10(max(at_last, TINY) / max(v, TINY)) for k, v in rms.items()}
        evidence = {
            "powers of ten over depth": abs(fit.decades),
            "factor per layer": 10**per_layer,
            "fit r2": fit.r2,
            f"gradient RMS of each layer's {fit.role.value}": rms,
        }
        return (
            Finding(
                symptom,
                Severity.CRITICAL if self._excess(fit) >= 2 else Severity.WARNING,
                tuple(layer for layer, decades in away.items() if decades >= half),
                optimizer,
                spell.first_step,
                spell.last_step,
                spell.active,
                evidence,
                explanation.format(first=first, last=last, at_first=at_first, at_last=at_last, factor=10**per_layer),
            ),
        )


@final
class VanishingDepth(AbstractDetector):
    """The gradient shrinks steadily from the last layer to the first, so that early layers hardly learn.

    Rule: see :class:`_DepthTrend`; the RMS of the weights' gradients falls by ``decades`` powers of ten from the last
    layer to the first, or that of the biases' by ``bias_decades``, on most of ``patience`` steps after ``warmup``.
    Relative, since published absolute thresholds differ by a factor of 1000. Critical from twice the limit.

    Why two limits: a weight's gradient is the product of what comes back and what came forward. In a plain net of
    PyTorch's default initialisation both shrink, and the product does not show it; a bias sees only what comes back,
    but falls by 10^3 in nets of eight layers that still train.

    What it can't see: the order of the layers is that in which the model registers them; where this is not the depth,
    no line fits and nothing is said. Networks of fewer than ``min_layers`` layers. Time steps inside a recurrent layer.

    Args:
        decades: limit for weights, in powers of ten, > 0.
        bias_decades: limit for biases.
        min_r2: how well a line has to fit, in [0, 1).
        min_layers: fewer layers than this are not judged, >= 3.
        warmup: counted steps passed over first.
        patience: steps over which the condition has to persist, >= 1.

    Source: Glorot and Bengio 2010 (profiles over depth); AUTOTRAINER, ICSE 2021 (first over last layer).
    """

    def __init__(
        self,
        decades: float = 3.0,
        *,
        bias_decades: float = 6.0,
        min_r2: float = 0.7,
        min_layers: int = 4,
        warmup: int = 10,
        patience: int = 20,
    ) -> None:
        self.optimizer = ""
        self.rule = _DepthTrend(
            +1,
            decades=decades,
            bias_decades=bias_decades,
            min_r2=min_r2,
            min_layers=min_layers,
            warmup=warmup,
            patience=patience,
        )

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        self.rule.observe(block)

    def findings(self) -> tuple[Finding, ...]:
        """Say where and by how much the gradient vanishes."""
        return self.rule.finding(
            self.optimizer,
            Symptom.VANISHING_DEPTH,
            "The gradient shrinks by a factor of {factor:.2g} per layer on its way back: RMS {at_last:.1e} in {last}, "
            "{at_first:.1e} in {first}. Layers that far from the loss hardly learn.",
        )


@final
class ExplodingDepth(AbstractDetector):
    """The gradient grows steadily from the last layer to the first.

    Rule, limits and blind spots: those of :class:`VanishingDepth`, in the other direction.

    Args:
        decades: limit for weights, in powers of ten, > 0.
        bias_decades: limit for biases.
        min_r2: how well a line has to fit, in [0, 1).
        min_layers: fewer layers than this are not judged, >= 3.
        warmup: counted steps passed over first.
        patience: steps over which the condition has to persist, >= 1.
    """

    def __init__(
        self,
        decades: float = 3.0,
        *,
        bias_decades: float = 6.0,
        min_r2: float = 0.7,
        min_layers: int = 4,
        warmup: int = 10,
        patience: int = 20,
    ) -> None:
        self.optimizer = ""
        self.rule = _DepthTrend(
            -1,
            decades=decades,
            bias_decades=bias_decades,
            min_r2=min_r2,
            min_layers=min_layers,
            warmup=warmup,
            patience=patience,
        )

    def observe(self, block: Block) -> None:
        """Take in the next steps."""
        self.optimizer = block.layout.optimizer
        self.rule.observe(block)

    def findings(self) -> tuple[Finding, ...]:
        """Say where and by how much the gradient explodes."""
        return self.rule.finding(
            self.optimizer,
            Symptom.EXPLODING_DEPTH,
            "The gradient grows by a factor of {factor:.2g} per layer on its way back: RMS {at_last:.1e} in {last}, "
            "{at_first:.1e} in {first}. One step size cannot suit both ends.",
        )
