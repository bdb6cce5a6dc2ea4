"""Measurements that need more of the model than its gradients."""

from gradguard.detect import Activations as Activations
from gradguard.detect import GateStatistics as GateStatistics
from gradguard.detect import Profile as Profile
from gradguard.detect import Signal as Signal
from gradguard.detect import Units as Units
from gradguard.probe.activations import activations as activations
from gradguard.probe.bad_module import BadModule as BadModule
from gradguard.probe.bad_module import first_bad_module as first_bad_module
from gradguard.probe.block_check import BlockCheck as BlockCheck
from gradguard.probe.block_check import GradientCheck as GradientCheck
from gradguard.probe.gates import gates as gates
from gradguard.probe.gradient_check import check_gradients as check_gradients
from gradguard.probe.lyapunov import LyapunovSpectrum as LyapunovSpectrum
from gradguard.probe.lyapunov import lyapunov_spectrum as lyapunov_spectrum
from gradguard.probe.recurrent_spectrum import RecurrentSpectrum as RecurrentSpectrum
from gradguard.probe.recurrent_spectrum import recurrent_spectrum as recurrent_spectrum
from gradguard.probe.sampling import ThroughTime as ThroughTime
from gradguard.probe.through_time import through_time as through_time
from gradguard.probe.updates import StepSize as StepSize
from gradguard.probe.updates import StepSizes as StepSizes
from gradguard.probe.updates import UpdateProbe as UpdateProbe
from gradguard.probe.updates import updates as updates
from gradguard.probe.watch import StateWatch as StateWatch
from gradguard.probe.watch import watch_state as watch_state
from gradguard.probe.watch import watching as watching
