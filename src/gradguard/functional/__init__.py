"""Tensors in, tensors out: no state, no logging, no host read unless the docstring says so."""

from gradguard.functional.finite import count_non_finite as count_non_finite
from gradguard.functional.finite import first_non_finite as first_non_finite
from gradguard.functional.histogram import Histograms as Histograms
from gradguard.functional.histogram import histograms as histograms
from gradguard.functional.measure import Measurement as Measurement
from gradguard.functional.measure import measure as measure
from gradguard.functional.memory import in_memory_order as in_memory_order
from gradguard.functional.norms import norms as norms
from gradguard.functional.norms import norms_over_mesh as norms_over_mesh
from gradguard.functional.norms import total_norm as total_norm
from gradguard.functional.norms import unit_norms as unit_norms
from gradguard.functional.running import Moments as Moments
from gradguard.functional.running import QuantileWindow as QuantileWindow
from gradguard.functional.running import new_moments as new_moments
from gradguard.functional.running import new_quantile_window as new_quantile_window
from gradguard.functional.running import quantile as quantile
from gradguard.functional.running import update_moments as update_moments
from gradguard.functional.running import update_quantile_window as update_quantile_window
