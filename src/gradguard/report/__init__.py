"""The page of a run, and its figures, from its history or its record.

Figures need matplotlib: ``pip install 'gradguard[plot]'``.
"""

from gradguard.report.gates import plot_gates as plot_gates
from gradguard.report.gates_over_steps import GateHistory as GateHistory
from gradguard.report.gates_over_steps import gate_over_steps as gate_over_steps
from gradguard.report.gates_over_steps import plot_gates_over_steps as plot_gates_over_steps
from gradguard.report.grad_norm import plot_grad_norm as plot_grad_norm
from gradguard.report.heat_map import plot_memory as plot_memory
from gradguard.report.layer_map import plot_layer_ratios as plot_layer_ratios
from gradguard.report.layer_map import plot_layers as plot_layers
from gradguard.report.layers import LayerTable as LayerTable
from gradguard.report.layers import grad_norms_by_layer as grad_norms_by_layer
from gradguard.report.layers import update_ratios_by_layer as update_ratios_by_layer
from gradguard.report.loss import plot_loss as plot_loss
from gradguard.report.memory import Memory as Memory
from gradguard.report.memory import memory_of as memory_of
from gradguard.report.page import write_page as write_page
from gradguard.report.profile import plot_profile as plot_profile
from gradguard.report.step import plot_step as plot_step
from gradguard.report.step import plot_step_ratios as plot_step_ratios
