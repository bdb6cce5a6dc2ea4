"""What a detector sees: some consecutive steps of one optimizer, as numbers on the host.

Shape legend: R = steps in the block, S = sampled steps in the block, N = parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor

from gradguard.detect.activations import Activations
from gradguard.detect.in_time import InTime
from gradguard.detect.state import saved


@saved
class Role(Enum):
    """What a parameter is to the depth of the network."""

    WEIGHT = "weight"  # a matrix or filter that multiplies what flows through the network
    BIAS = "bias"  # the bias beside such a weight
    OTHER = "other"  # embeddings, norms' gains and shifts, loose parameters


@dataclass(frozen=True)
class Layout:
    """The parameters of one optimizer, in the order of the model (its depth, as far as registration order tells).

    Attributes:
        optimizer: its name.
        names: canonical parameter names, N of them.
        layers: the module that owns each, as ``named_modules`` spells it; ``lstm.l0`` for a layer inside a stacked
            recurrent module.
        sizes: number of entries of each.
        roles: what each is to the depth.
        norm_type: p of the gradient norms.
        resolution: coarsest machine epsilon among the gradients' types: 2^-23 for float32, 2^-7 for bfloat16.
    """

    optimizer: str
    names: tuple[str, ...]
    layers: tuple[str, ...]
    sizes: tuple[int, ...]
    roles: tuple[Role, ...]
    norm_type: float = 2.0
    resolution: float = 2.0**-23


@dataclass(frozen=True)
class Samples:
    """What is measured on sampled steps only.

    Attributes:
        steps: int64, [S].
        weight_norms: float64, [S, N]; norm of each parameter before the step.
        update_ratios: float64, [S, N]; norm of the step's change over ``weight_norms``; NaN where that is 0 or where
            the step was skipped.
        learning_rates: float64, [S, N]; NaN where it lies in a tensor.
    """

    steps: Tensor
    weight_norms: Tensor
    update_ratios: Tensor
    learning_rates: Tensor


@dataclass(frozen=True)
class Clips:
    """What a clipper did at the steps of a block; NaN where it was not asked, as at an overflow.

    Attributes:
        parts: names of its parts, P of them; none where it is a single clipper.
        limits: whether it only makes gradients smaller: one that gives them another scale on purpose is not judged.
        totals: float64, [R]; total gradient norm after it.
        coefficients: float64, [R, 1 + P]; total norm after over before, of all gradients and of each part's.
        thresholds: float64, [R, 1 + P]; norm beyond which it clips at this step; NaN where there is none.
        clipped: bool, [R]; whether any gradient was changed.
        changes: float64, [R]; how many of its statistics began anew at this step, after a lasting change of level.
    """

    parts: tuple[str, ...]
    limits: bool
    totals: Tensor
    coefficients: Tensor
    thresholds: Tensor
    clipped: Tensor
    changes: Tensor


@dataclass(frozen=True)
class Block:
    """Consecutive steps of one optimizer.

    Attributes:
        layout: whose columns these are.
        steps: int64, [R]; counted from 1.
        grad_norms: float64, [R, N]; unscaled, 0 where a gradient is missing.
        totals: float64, [R].
        missing: bool, [R, N].
        trainable: bool, [N]; whether it takes part in training when the block ends.
        overflow: bool, [R]; a routine fp16 overflow, which the loss scaler skips: enters no statistic.
        losses: float64, [R]; NaN where none was recorded.
        has_loss: bool, [R]; whether one was.
        samples: what was measured on sampled steps among these.
        skipped: bool, [R]; whether the guard itself left the step out, since its gradients are not finite.
        clips: what a clipper did; None where there is none.
        in_time: what sampled steps among these showed of recurrent modules; none where nobody looked.
        activations: what sampled steps among these showed of the layers' outputs; none where nobody looked.
        moved: float64, [R]; norm of the step's change over the weights' norm, of a small fixed sample of the weights;
            NaN where it is not known.
        alone: whether the guard watches no other optimizer.
    """

    layout: Layout
    steps: Tensor
    grad_norms: Tensor
    totals: Tensor
    missing: Tensor
    trainable: Tensor
    overflow: Tensor
    losses: Tensor
    has_loss: Tensor
    samples: Samples
    skipped: Tensor
    clips: Clips | None = None
    in_time: tuple[InTime, ...] = ()
    activations: tuple[Activations, ...] = ()
    moved: Tensor | None = None
    alone: bool = True


def matrices(layout: Layout) -> list[int]:
    """Give the places of the weight matrices; of all but biases where there are none, as in a model of embeddings."""
    of = {role: [i for i, one in enumerate(layout.roles) if one is role] for role in Role}
    return of[Role.WEIGHT] or of[Role.OTHER]
