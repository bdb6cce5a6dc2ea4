"""TensorBoard: histograms, figures, text, and a layout that groups our charts under "Custom Scalars"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

from gradguard.functional import Histograms
from gradguard.integrations.bars import edges
from gradguard.integrations.base import AbstractDashboard


@final
class TensorBoard(AbstractDashboard):
    """Asks the experiment for each method of a ``SummaryWriter``: of a logger that has none, such as CSV, only numbers.

    There is no place for a page of HTML.
    """

    def text(self, key: str, text: str, step: int) -> None:
        """Show it as it is, not as Markdown."""
        if add := self._method("add_text"):
            fence = "`" * 12  # longer than any that a name may hold
            add(key, f"{fence}text\n{text}\n{fence}", step)

    def histograms(self, each: Mapping[str, Histograms], step: int) -> None:
        """Show them with the bars that were counted, none counted twice."""
        if add := self._method("add_histogram_raw"):
            for key, one in each.items():
                add(
                    key,
                    min=float(one.lows),
                    max=float(one.highs),
                    num=float(one.counts.sum()),
                    sum=float(one.sums),
                    sum_squares=float(one.squares),
                    bucket_limits=edges(one)[1:].tolist(),
                    bucket_counts=one.counts.tolist(),
                    global_step=step,
                )

    @property
    def shows_figures(self) -> bool:
        """Whether there is ``add_figure``."""
        return self._method("add_figure") is not None

    def figure(self, key: str, figure: Any, step: int) -> None:
        """Show it as an image."""
        if add := self._method("add_figure"):
            add(key, figure, step, close=False)

    def charts(self, groups: Mapping[str, Mapping[str, Sequence[str]]]) -> None:
        """Lay them out; runs that are looked at together share their charts."""
        if add := self._method("add_custom_scalars"):
            add({name: {title: ["Multiline", list(keys)] for title, keys in of.items()} for name, of in groups.items()})

    def _method(self, name: str) -> Callable[..., Any] | None:
        found: Callable[..., Any] | None = getattr(getattr(self.logger, "experiment", None), name, None)
        return found
