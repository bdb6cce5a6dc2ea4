"""Figures of what was seen through time, for the loggers that show them."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any, final

from gradguard.detect import InTime
from gradguard.lightning.dashboards import Dashboards

FIRST = 8  # twice as many looks there are when the first figures are drawn, unless the fit ends before


@final
class Figures:
    """Draws where there is something new to see: at the end of a fit, and as often as the looks have doubled.

    Args:
        dashboards: where they are shown; None for nowhere.
    """

    def __init__(self, dashboards: Dashboards | None) -> None:
        self.dashboards = dashboards if importlib.util.find_spec("matplotlib") else None
        self.latest: dict[str, InTime] = {}  # by the prefix of an optimizer's series
        self.looks, self.drawn = 0, 0

    def seen(self, prefix: str, sample: InTime) -> None:
        """Note a sampled step."""
        self.latest[prefix] = sample
        self.looks += 1

    @property
    def is_due(self) -> bool:
        """Whether the looks have doubled since figures were drawn."""
        return self.looks >= 2 * max(FIRST, self.drawn)

    def draw(self, history: Mapping[str, Any], x: int) -> None:
        """Draw the history and the latest look of each layer. Host sync: none."""
        if self.dashboards is None or self.looks == self.drawn or not self.dashboards.takers["figures"]:
            return
        from gradguard.report import plot_gates, plot_memory

        self.drawn = self.looks
        for prefix, sample in self.latest.items():
            for profile in (one for profiles in sample.modules.values() for one in profiles):
                name = f"{prefix}memory/{profile.layer}"
                if f"{name}/0" in history:
                    self.dashboards.figure(name, plot_memory(history, f"{prefix}{profile.layer}").figure, x)
                if profile.gates:
                    self.dashboards.figure(f"{prefix}gates/{profile.layer}", plot_gates(profile.gates).figure, x)
