"""The published rules of others, applied to the runs of the corpus on plain torch."""

from benchmarks.faults.peers.autotrainer import AutoTrainer as AutoTrainer
from benchmarks.faults.peers.debugger import Debugger as Debugger
