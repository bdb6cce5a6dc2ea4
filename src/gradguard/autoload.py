"""What Lightning's entry points call at every Trainer: nothing, unless the user asked for it."""

from __future__ import annotations

import os
from typing import Any


def callbacks() -> list[Any]:
    """Give a GradGuard where ``GRADGUARD_AUTO=1`` is set; it yields to one that the user passed."""
    if os.environ.get("GRADGUARD_AUTO") != "1":
        return []
    from gradguard.lightning import GradGuard

    guard = GradGuard()
    guard.is_automatic = True
    return [guard]
