"""The guard of a plain training loop."""

from gradguard.guard.guard import Guard as Guard
from gradguard.guard.journal import Flush as Flush
