"""What a clipper did over some steps: a hard clip between two logged steps is not lost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

from gradguard.detect import Block


@final
class ClipTotals:
    """Sums up what the clipper and the skipping of one optimizer did. All ranks see the same numbers."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget everything."""
        self.asked = self.clipped = self.skipped = 0
        self.last: dict[str, float] = {}
        self.smallest: dict[str, float] = {}

    def update(self, block: Block) -> None:
        """Take in some steps."""
        self.skipped += int(block.skipped.sum())
        clips = block.clips
        if clips is None:
            return
        self.asked += int((~clips.totals.isnan()).sum())
        self.clipped += int(clips.clipped.sum())
        self._note("grad_norm/clipped", clips.totals.tolist())
        for i, name in enumerate(["", *(f"/{part}" for part in clips.parts)]):
            self._note(f"clip/threshold{name}", clips.thresholds[:, i].tolist())
            key = f"clip/coefficient{name}"
            for coefficient in clips.coefficients[:, i].tolist():
                if not math.isnan(coefficient):
                    self.smallest[key] = min(coefficient, self.smallest.get(key, math.inf))

    def _note(self, key: str, values: list[float]) -> None:
        known = [value for value in values if not math.isnan(value)]
        if known:
            self.last[key] = known[-1]

    def so_far(self) -> dict[str, float]:
        """Give the values; nothing where no clipper was asked, and no skip."""
        rate = {"clip/rate": self.clipped / self.asked} if self.asked else {}
        skipped = {"skipped": float(self.skipped)} if self.skipped else {}
        return {**self.last, **self.smallest, **rate, **skipped}

    def state_dict(self) -> dict[str, Any]:
        """Give the sums so far."""
        return {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from them."""
        self.begin_anew()
        for name, value in state.items():
            setattr(self, name, dict(value) if isinstance(value, Mapping) else value)
