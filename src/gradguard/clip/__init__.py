"""Clippers: every published rule, and rescalers that may lift a gradient, too."""

from gradguard.clip.adagc import AdaGC as AdaGC
from gradguard.clip.agc import AGC as AGC
from gradguard.clip.autoclip import AutoClip as AutoClip
from gradguard.clip.band import NormBand as NormBand
from gradguard.clip.base import AbstractClipper as AbstractClipper
from gradguard.clip.base import AbstractRescaler as AbstractRescaler
from gradguard.clip.base import ClipResult as ClipResult
from gradguard.clip.baseline import AbstractBaseline as AbstractBaseline
from gradguard.clip.baseline import Ema as Ema
from gradguard.clip.baseline import MedianMad as MedianMad
from gradguard.clip.binding import Binding as Binding
from gradguard.clip.factors import AbstractFactors as AbstractFactors
from gradguard.clip.norm import NormClip as NormClip
from gradguard.clip.patterns import check_patterns as check_patterns
from gradguard.clip.per_module import PerModule as PerModule
from gradguard.clip.stabilizer import GradientStabilizer as GradientStabilizer
from gradguard.clip.target import AbstractTarget as AbstractTarget
from gradguard.clip.target import Reciprocal as Reciprocal
from gradguard.clip.target import ToMean as ToMean
from gradguard.clip.target import ToThreshold as ToThreshold
from gradguard.clip.value import ValueClip as ValueClip
from gradguard.clip.zclip import ZClip as ZClip
