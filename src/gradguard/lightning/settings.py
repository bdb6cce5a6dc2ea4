"""What the callbacks of one Trainer want, and what they want together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from gradguard.arguments import whole_number
from gradguard.clip import AbstractRescaler
from gradguard.detect import AbstractDetector, Finding
from gradguard.guard.alarm import notify_argument
from gradguard.guard.arguments import (
    clip_argument,
    detector_objects,
    norm_order,
    recover_argument,
    through_time_argument,
)
from gradguard.probe import ThroughTime
from gradguard.recover import Skip

Detail = Literal["module", "parameter", "total"]
DETAILS = ("total", "module", "parameter")  # from the coarsest to the finest
SHARED = ("every_n_steps", "norm_type", "max_points")  # what one guard can have only once


@dataclass(frozen=True)
class Settings:
    """See the arguments of :class:`gradguard.lightning.GradGuard`."""

    every_n_steps: int = 50
    norm_type: float = 2.0
    max_points: int = 1024
    detectors: tuple[AbstractDetector, ...] = ()
    detail: Detail = "total"
    histograms: bool = False
    prog_bar: bool = False
    summary: bool = False
    strict: bool = False
    record: bool = False
    report: bool = False
    run_dir: Path | None = None
    clip: AbstractRescaler | dict[str, AbstractRescaler] | None = None
    recover: Skip | None = None
    figures: bool = False
    activations: bool = False
    through_time: ThroughTime | None = None
    notify: tuple[Callable[[Finding], object], ...] = ()


def checked(
    *,
    every_n_steps: int,
    norm_type: float | Literal["inf"],
    max_points: int,
    detectors: Sequence[AbstractDetector] | None,
    detail: Detail,
    run_dir: str | Path | None = None,
    clip: AbstractRescaler | Mapping[str, AbstractRescaler] | None = None,
    recover: Skip | None = None,
    through_time: bool | ThroughTime | None = None,
    notify: Callable[[Finding], object] | Sequence[Callable[[Finding], object]] | None = None,
    **flags: bool,
) -> Settings:
    """Give the settings, once every argument was looked at: a mistake is said where it was typed.

    Raises:
        ValueError, TypeError: an argument that can't be meant.
    """
    if detail not in DETAILS:
        raise ValueError(f"detail needs to be one of {', '.join(DETAILS)}, got {detail!r}.")
    if run_dir is not None and not isinstance(run_dir, str | Path):
        raise TypeError(f"run_dir needs to be a path, got {run_dir!r}.")
    if run_dir is not None and not flags.get("record", True):
        raise ValueError(f"A run record is either written or not: got record=False and run_dir={str(run_dir)!r}.")
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise TypeError(f"{name} needs to be True or False, got {flag!r}.")
    if flags.get("report") and not flags.get("record", True):
        raise ValueError("The report is made from the run record: got report=True and record=False. Leave out one.")
    return Settings(
        every_n_steps=whole_number("Guard", "every_n_steps", every_n_steps),
        norm_type=norm_order(math.inf if norm_type == "inf" else norm_type),
        max_points=whole_number("Guard", "max_points", max_points, least=2),
        detectors=detector_objects(detectors, through_time=bool(through_time)),
        detail=detail,
        run_dir=None if run_dir is None else Path(run_dir),
        clip=clip_argument(clip),
        recover=recover_argument(recover),
        through_time=through_time_argument(through_time),
        notify=notify_argument(notify),
        **flags,
    )


def like(settings: Settings, other: Settings) -> Settings:
    """Give the settings with what one guard can have only once taken from others."""
    return replace(settings, **{field: getattr(other, field) for field in SHARED})


def joined(wanted: Sequence[tuple[str, Settings]]) -> Settings:
    """Give what serves all of the callbacks, named by their classes.

    Raises:
        ValueError: two of them want what one guard can't give both.
    """
    (first_name, first), *others = wanted
    for name, other in others:
        for field in SHARED:
            a, b = getattr(first, field), getattr(other, field)
            if a != b:
                raise ValueError(
                    f"The callbacks of one Trainer share one guard: {first_name} has {field}={a}, {name} has "
                    f"{field}={b}. Give them the same."
                )
        if first.run_dir and other.run_dir and first.run_dir != other.run_dir:
            raise ValueError(
                f"The callbacks of one Trainer write one run record: {first_name} has run_dir={first.run_dir}, {name} "
                f"has {other.run_dir}. Give one of them."
            )
    clip = _only_one(wanted, "clip", "Gradients would be clipped twice")
    recover = _only_one(wanted, "recover", "Steps would be skipped twice")
    through_time = _only_one(wanted, "through_time", "One guard looks through time in one way")
    everything = [settings for _, settings in wanted]
    finest = max(everything, key=lambda s: DETAILS.index(s.detail)).detail
    any_of = {f.name: any(getattr(s, f.name) for s in everything) for f in fields(Settings) if f.type == "bool"}
    return Settings(
        **{field: getattr(first, field) for field in SHARED},
        **any_of,
        detectors=_all_kinds([s.detectors for s in everything]),
        detail=finest,
        run_dir=next((s.run_dir for s in everything if s.run_dir), None),
        clip=clip,
        recover=recover,
        through_time=through_time,
        notify=tuple({id(one): one for settings in everything for one in settings.notify}.values()),
    )


def _only_one(wanted: Sequence[tuple[str, Settings]], what: str, twice: str) -> Any:
    given = [(name, getattr(s, what)) for name, s in wanted if getattr(s, what) is not None]
    if len(given) > 1 and any(one is not given[0][1] and one != given[0][1] for _, one in given):
        names = " and ".join(f"{name}({what}={one!r})" for name, one in given)
        raise ValueError(f"{twice}: {names}. Remove one of them.")
    return given[0][1] if given else None


def _all_kinds(several: Sequence[tuple[AbstractDetector, ...]]) -> tuple[AbstractDetector, ...]:
    """Give the longest list of detectors, and of the others those whose kind it has not."""
    longest, *others = sorted(several, key=len, reverse=True)
    found = list(longest)
    for detector in (one for other in others for one in other):
        if type(detector) not in map(type, found):
            found.append(detector)
    return tuple(found)
