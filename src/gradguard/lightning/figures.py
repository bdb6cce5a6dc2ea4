"""Figures of what was seen, for the loggers that show them."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any, final

from gradguard.detect import InTime, Layout
from gradguard.errors import GradGuardWarning
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
        self.layouts: dict[str, Layout] = {}  # the same
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
        """Draw the history and the latest look of each layer through time. Host sync: none."""
        if self.looks == self.drawn or self.dashboards is None or not self.dashboards.want_figures():
            return
        from gradguard.report import plot_gates, plot_memory

        self.drawn = self.looks
        for prefix, sample in self.latest.items():
            for profile in (one for profiles in sample.modules.values() for one in profiles):
                name = f"{prefix}memory/{profile.layer}"
                if f"{name}/0" in history:
                    self._show(name, x, plot_memory, history, f"{prefix}{profile.layer}")
                if profile.gates:
                    self._show(f"{prefix}gates/{profile.layer}", x, plot_gates, profile.gates)

    def draw_layers(self, history: Mapping[str, Any], x: int) -> None:
        """Draw all layers over the whole run: gradient norms and sizes of updates, where known. Host sync: none."""
        if self.dashboards is None or not self.dashboards.want_figures():
            return
        from gradguard.report import grad_norms_by_layer, plot_layer_ratios, plot_layers, update_ratios_by_layer

        for prefix, layout in self.layouts.items():
            for name, table_of, plot in (
                ("grad_norm", grad_norms_by_layer, plot_layers),
                ("update_ratio", update_ratios_by_layer, plot_layer_ratios),
            ):
                if not table_of(history, layout, prefix).values.isnan().all():  # as where the loss was never finite
                    self._show(f"{prefix}layers/{name}", x, plot, history, layout, prefix=prefix)

    def _show(self, name: str, x: int, plot: Callable[..., Any], *of: Any, **options: Any) -> None:
        if self.dashboards is None:
            return
        try:
            figure = plot(*of, **options).figure
        except Exception as error:
            self.dashboards = None
            warnings.warn(
                f"GradGuard draws no more figures, {plot.__name__} failed: {type(error).__name__}: {error}. Training "
                "goes on.",
                GradGuardWarning,
                stacklevel=3,
            )
        else:
            self.dashboards.figure(name, figure, x)
