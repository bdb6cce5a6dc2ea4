"""What keeps a run alive when its gradients are past saving."""

from gradguard.recover.shadow import BufferShadow as BufferShadow
from gradguard.recover.skip import Skip as Skip
from gradguard.recover.skip import Skipping as Skipping
