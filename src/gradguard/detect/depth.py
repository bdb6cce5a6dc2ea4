"""Vanishing and exploding over the depth of the network."""

from __future__ import annotations

from typing import ClassVar, final

import torch

from gradguard.detect.base import AbstractDetector, Persistence, Spell
from gradguard.detect.block import Block, Role
from gradguard.detect.depth_fit import Fit, Judge
from gradguard.detect.finding import Finding, Severity
from gradguard.detect.symptom import Symptom


class AbstractDepthDetector(AbstractDetector):
    r"""Says since when the gradient changes steadily, by orders of magnitude, from the last layer to the first.

    With :math:`g_l` the root mean square of the gradient entries of layer :math:`l` (the power mean of the guard's
    ``norm_type``) and :math:`x_l \in [0, 1]` its place among the layers that have a gradient, a line
    :math:`\log_{10} g_l = a + b x_l` is fitted at each step, once over the weights and once over the biases. The step
    is sick where :math:`d \cdot b` reaches the limit and the line explains ``min_r2`` of the variance; :math:`d` is the
    direction, +1 where the gradient vanishes. Where blocks repeat, as a transformer's do, lines are fitted as well
    through the layers that stand at the same place of each (``blocks.0.qkv``, ``blocks.1.qkv`` ...): gradients of
    different kinds of layers differ by more than depth adds.

    The same of the gradients by the layers' outputs, in the order of their calls, at three sampled steps on end, with
    a limit of its own: what comes back, without what came forward.

    Relative, since published absolute thresholds differ by a factor of 1000. Critical from twice the limit.

    Why two limits: a weight's gradient is the product of what comes back and what came forward. In a plain net of
    PyTorch's default initialisation both shrink, and the product does not show it; a bias sees only what comes back,
    but falls by 10^3 in nets of eight layers that still train.

    What it can't see: the order of the layers is that in which the model registers them; where this is not the depth,
    no line fits and nothing is said. Networks of fewer than ``min_layers`` layers. Time steps inside a recurrent layer.

    Args:
        decades: limit for weights, in powers of ten, > 0.
        bias_decades: limit for biases.
        output_decades: limit for the gradients by the layers' outputs.
        min_r2: how well a line has to fit, in [0, 1).
        min_layers: a step at which fewer layers than this have a gradient is not judged, >= 3.
        warmup: counted steps passed over first.
        patience: steps over which the condition has to persist, >= 1.
        early: first steps, >= 1, at four in five of which it is enough by itself: a start that is far off does its harm
            before the warm-up is over, and may hide behind it.

    Source: Glorot and Bengio 2010 (profiles over depth); AUTOTRAINER, ICSE 2021 (first over last layer).
    """

    direction: ClassVar[int]
    symptom: ClassVar[Symptom]
    explanation: ClassVar[str]
    start_is_enough: ClassVar[bool] = False  # whether the first sample is, of the gradients by outputs

    def __init__(
        self,
        decades: float = 3.0,
        *,
        bias_decades: float = 6.0,
        output_decades: float = 5.0,
        min_r2: float = 0.7,
        min_layers: int = 4,
        warmup: int = 10,
        patience: int = 20,
        early: int = 5,
    ) -> None:
        limits = (decades, bias_decades, output_decades)
        if not (min(limits) > 0 and 0 <= min_r2 < 1 and min_layers >= 3 and warmup >= 0):
            raise ValueError(
                f"{type(self).__name__} needs decades > 0, bias_decades > 0, output_decades > 0, 0 <= min_r2 < 1, "
                f"min_layers >= 3 and warmup >= 0, got {limits}, {min_r2=}, {min_layers=}, {warmup=}."
            )
        self.decades, self.bias_decades, self.output_decades = limits
        self.min_r2, self.min_layers, self.warmup, self.patience = min_r2, min_layers, warmup, patience
        self.persistence, self.beginning, self.sampled = Persistence(patience), Persistence(early), Persistence(3, 1.0)
        self.early = early
        self.optimizer = ""
        self.counted = 0
        self.steepest: Fit | None = None
        self.at_first: Fit | None = None
        self.of_outputs: Fit | None = None
        self.looked = 0  # samples
        self.start: Spell | None = None  # the first one, where that was enough

    def observe(self, block: Block) -> None:
        """Take in the next steps; overflow steps and steps with a NaN or Inf are passed over."""
        self.optimizer = block.layout.optimizer
        judge = Judge(self.direction, self.min_r2, self.min_layers)
        profiles = [
            *judge.of_parameters(block, Role.WEIGHT, self.decades),
            *judge.of_parameters(block, Role.BIAS, self.bias_decades),
        ]
        judged = ~block.overflow & block.totals.isfinite() & (block.totals > 0) & bool(profiles)
        most, of = torch.stack([p.excess for p in profiles] or [torch.zeros(len(judged))]).max(0)
        columns = (column.tolist() for column in (block.steps, judged, most, of))
        for row, (step, counts, excess, which) in enumerate(zip(*columns, strict=True)):
            self.counted += counts
            if not counts:
                continue
            if self.counted <= self.early:
                self.beginning.observe(step, excess > 0)
                if excess > (self.at_first.excess if self.at_first else 0):
                    self.at_first = profiles[which].at(row)
            lasts = self.counted > self.warmup and self.persistence.observe(step, excess > 0)
            if lasts and excess > (self.steepest.excess if self.steepest else 0):
                self.steepest = profiles[which].at(row)
        for sample in block.activations:
            if not sample.signals:
                continue
            fit = judge.of_outputs(sample, self.output_decades)
            self.looked += 1
            lasts = self.sampled.observe(sample.step, fit is not None)
            is_start = self.start_is_enough and self.looked == 1 and fit is not None
            if is_start:
                self.start = Spell(sample.step, sample.step, active=False)
            if fit is not None and (lasts or is_start):
                self.of_outputs = max(self.of_outputs or fit, fit, key=lambda one: one.excess)

    def _spell(self) -> Spell | None:
        """Give the spells of the beginning, the steps and the samples as one."""
        first, later = self.beginning.spell, self.persistence.spell
        if first is not None:  # as long as the later one does not know
            still = later is None and self.counted <= self.warmup + self.patience
            first = Spell(first.first_step, first.last_step, active=still)
        spells = [one for one in (first, later, self.sampled.spell, self.start) if one is not None]
        if not spells:
            return None
        begin, end = min(one.first_step for one in spells), max(one.last_step for one in spells)
        return Spell(begin, end, any(one.active for one in spells))

    def findings(self) -> tuple[Finding, ...]:
        """Say where and by how much, if it persisted: the profile shown is the steepest one since then."""
        spell = self._spell()
        earliest = self.at_first if self.beginning.spell else None
        fits = [fit for fit in (self.steepest, earliest, self.of_outputs) if fit is not None]
        fit = max(fits, key=lambda f: f.excess, default=None)
        if spell is None or fit is None:
            return ()
        fitted = {layer: size for layer, size in fit.sizes.items() if size > 0}
        (first, at_first), *_, (last, at_last) = fitted.items()
        per_layer = 10 ** (abs(fit.decades) / (len(fitted) - 1))
        # Half the limit away from the last layer; a layer whose gradient underflowed to zero is as far as can be.
        far = at_last * 10 ** (-self.direction * fit.limit / 2)
        where = tuple(layer for layer, size in fit.sizes.items() if self.direction * (far - size) >= 0)
        evidence = {
            "powers of ten over depth": abs(fit.decades),
            "factor per layer": per_layer,
            "fit r2": fit.r2,
            fit.what: fit.sizes,
        }
        return (
            Finding(
                self.symptom,
                Severity.CRITICAL if fit.excess >= 2 else Severity.WARNING,
                where,
                self.optimizer,
                spell.first_step,
                spell.last_step,
                spell.active,
                evidence,
                self.explanation.format(
                    first=first or "(root)", last=last or "(root)", at_first=at_first, at_last=at_last, factor=per_layer
                ),
            ),
        )


@final
class VanishingDepth(AbstractDepthDetector):
    """The gradient shrinks steadily on its way back, so that early layers hardly learn.

    Rule, arguments and blind spots are those of :class:`AbstractDepthDetector`, with direction +1.
    """

    direction = +1
    symptom = Symptom.VANISHING_DEPTH
    explanation = (
        "The gradient shrinks by a factor of {factor:.2g} per layer on its way back: {at_last:.1e} in {last}, "
        "{at_first:.1e} in {first} (mean size of an entry). Layers that far from the loss hardly learn."
    )


@final
class ExplodingDepth(AbstractDepthDetector):
    """The gradient grows steadily on its way back, so that no step size suits both ends.

    Rule, arguments and blind spots are those of :class:`AbstractDepthDetector`, with direction -1 and lower limits:
    where a plain net's gradient changes over depth, and it trains all the same, it fades. Of the gradients by the
    layers' outputs the first sample is enough: what explodes at the first step may have nothing left at the third.
    """

    direction = -1
    start_is_enough = True
    symptom = Symptom.EXPLODING_DEPTH
    explanation = (
        "The gradient grows by a factor of {factor:.2g} per layer on its way back: {at_last:.1e} in {last}, "
        "{at_first:.1e} in {first} (mean size of an entry). One step size cannot suit both ends."
    )

    def __init__(
        self,
        decades: float = 2.0,
        *,
        bias_decades: float = 3.0,
        output_decades: float = 2.0,
        min_r2: float = 0.7,
        min_layers: int = 4,
        warmup: int = 10,
        patience: int = 20,
        early: int = 5,
    ) -> None:
        super().__init__(
            decades,
            bias_decades=bias_decades,
            output_decades=output_decades,
            min_r2=min_r2,
            min_layers=min_layers,
            warmup=warmup,
            patience=patience,
            early=early,
        )
