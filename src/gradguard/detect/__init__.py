"""Detectors and advice: symptom -> ordered sentences."""

from gradguard.detect.activations import Activations as Activations
from gradguard.detect.activations import Signal as Signal
from gradguard.detect.activations import Units as Units
from gradguard.detect.advice import ADVICE as ADVICE
from gradguard.detect.base import AbstractDetector as AbstractDetector
from gradguard.detect.block import Block as Block
from gradguard.detect.block import Clips as Clips
from gradguard.detect.block import Layout as Layout
from gradguard.detect.block import Role as Role
from gradguard.detect.block import Samples as Samples
from gradguard.detect.clipped_too_often import ClippedTooOften as ClippedTooOften
from gradguard.detect.clipped_upstream import ClippedUpstream as ClippedUpstream
from gradguard.detect.dead_units import DeadUnits as DeadUnits
from gradguard.detect.depth import ExplodingDepth as ExplodingDepth
from gradguard.detect.depth import VanishingDepth as VanishingDepth
from gradguard.detect.exploding_time import ExplodingTime as ExplodingTime
from gradguard.detect.finding import Finding as Finding
from gradguard.detect.finding import Severity as Severity
from gradguard.detect.in_time import GateStatistics as GateStatistics
from gradguard.detect.in_time import InTime as InTime
from gradguard.detect.in_time import Profile as Profile
from gradguard.detect.loss_spike import LossSpike as LossSpike
from gradguard.detect.no_gradient import NoGradient as NoGradient
from gradguard.detect.non_finite import NonFinite as NonFinite
from gradguard.detect.oscillating_loss import OscillatingLoss as OscillatingLoss
from gradguard.detect.poor_initialisation import PoorInitialisation as PoorInitialisation
from gradguard.detect.saturated_gates import SaturatedGates as SaturatedGates
from gradguard.detect.saturated_units import SaturatedUnits as SaturatedUnits
from gradguard.detect.slow_convergence import SlowConvergence as SlowConvergence
from gradguard.detect.symptom import Symptom as Symptom
from gradguard.detect.update_too_large import UpdateTooLarge as UpdateTooLarge
from gradguard.detect.update_too_small import UpdateTooSmall as UpdateTooSmall
from gradguard.detect.vanishing_time import VanishingTime as VanishingTime


def default_detectors(*, through_time: bool = False) -> tuple[AbstractDetector, ...]:
    """Every detector that has something to go by, as a guard uses them when it is given none."""
    always = (
        NonFinite(),
        ExplodingDepth(),
        VanishingDepth(),
        PoorInitialisation(),
        DeadUnits(),
        SaturatedUnits(),
        NoGradient(),
        UpdateTooLarge(),
        UpdateTooSmall(),
        LossSpike(),
        OscillatingLoss(),
        SlowConvergence(),
        ClippedTooOften(),
        ClippedUpstream(),
    )
    return (*always, ExplodingTime(), VanishingTime(), SaturatedGates()) if through_time else always
