"""Callbacks for a Trainer of either Lightning: hooks in, the guard called."""

from gradguard.lightning.clipping import GradientClipping as GradientClipping
from gradguard.lightning.guard import GradGuard as GradGuard
from gradguard.lightning.initialise import Initialise as Initialise
from gradguard.lightning.monitor import GradientMonitor as GradientMonitor
from gradguard.lightning.through_time import ThroughTimeMonitor as ThroughTimeMonitor
