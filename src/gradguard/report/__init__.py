"""Figures of a run, from its history or its record. They need matplotlib: ``pip install 'gradguard[plot]'``."""

from gradguard.report.gates import plot_gates as plot_gates
from gradguard.report.heat_map import plot_memory as plot_memory
from gradguard.report.memory import Memory as Memory
from gradguard.report.memory import memory_of as memory_of
from gradguard.report.profile import plot_profile as plot_profile
