"""Which of our series belong on one chart, for the dashboards whose charts can be grouped."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gradguard.lightning.keys import spelled
from gradguard.lightning.settings import Settings
from gradguard.lightning.totals import NAMES


def charts(settings: Settings, prefixes: Iterable[str]) -> dict[str, dict[str, list[str]]]:
    """Give the charts of each optimizer by group and title, as regular expressions of keys.

    Only those that these settings fill. No place of the model is named: runs of other models share the charts.

    >>> groups = charts(Settings(), [""])
    >>> list(groups), list(groups["gradguard"])
    (['gradguard'], ['Gradient norm', 'Size of updates', 'Steps lost'])
    """
    found = {}
    for prefix in prefixes:
        stem = spelled(f"{prefix}grad_norm").removesuffix("grad_norm")
        titles = _titles(settings)
        found[stem.rstrip("/")] = {
            title: [f"{re.escape(stem)}{key}$" for key in keys] for title, keys in titles.items()
        }
    return found


def _titles(settings: Settings) -> dict[str, list[str]]:
    norms, place = ["grad_norm/(total|mean|max)"], settings.detail
    found = {"Gradient norm": norms, "Size of updates": ["update_ratio/mean"]}
    if settings.clip is not None:
        norms += ["grad_norm/clipped", "clip/threshold(/.+)?"]
        found["Clipping"] = ["clip/(coefficient|rate)(/.+)?"]
    found["Steps lost"] = ["non_finite_share", "overflows", "skipped"]
    if settings.detectors:
        found["Findings, 1 while they hold"] = ["finding/.+"]
    if place != "total":
        taken = "|".join(re.escape(name.removeprefix("grad_norm/")) for name in (*NAMES[:3], "clipped"))
        found[f"Gradient norm by {place}"] = [f"grad_norm/(?!({taken})$).+"]
        found[f"Size of updates by {place}"] = ["update_ratio/(?!mean$).+"]
        found[f"Weight norm by {place}"] = ["weight_norm/.+"]
        if settings.activations:
            found["Output by module"] = ["activation/.+/rms"]
            found["Gradient of the output by module"] = ["activation/.+/grad_rms"]
            found["Units that do nothing by module"] = ["activation/.+/(silent|saturated)"]
    if settings.through_time is not None:
        found["How far back the gradient reaches"] = ["through_time/.+/(horizon|length)"]
        found["Growth at each step back"] = ["through_time/.+/rate"]
        found["Gates, mean"] = ["gates/.+/mean"]
        found["Gates, share saturated"] = ["gates/.+/(shut|open)"]
    return found
