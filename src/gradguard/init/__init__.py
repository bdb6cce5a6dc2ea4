"""Initialisers, in place, for recurrent and deep networks of torch's modules and of gradguard's.

Each gives back what it changed. An error leaves every weight as it was. A frozen weight is initialised like any other.
"""

from gradguard.init.activations import for_activations_ as for_activations_
from gradguard.init.changes import Change as Change
from gradguard.init.changes import Changes as Changes
from gradguard.init.description import Description as Description
from gradguard.init.description import Weights as Weights
from gradguard.init.description import describe as describe
from gradguard.init.eigenvalues import identity_ as identity_
from gradguard.init.eigenvalues import spectral_radius_ as spectral_radius_
from gradguard.init.gate_biases import chrono_ as chrono_
from gradguard.init.gate_biases import forget_gate_ as forget_gate_
from gradguard.init.gate_biases import uniform_gate_ as uniform_gate_
from gradguard.init.gate_weights import kaiming_ as kaiming_
from gradguard.init.gate_weights import orthogonal_ as orthogonal_
from gradguard.init.gate_weights import xavier_ as xavier_
from gradguard.init.lsuv import lsuv_ as lsuv_
from gradguard.init.residual import zero_residual_ as zero_residual_
