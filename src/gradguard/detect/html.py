"""Findings and profiles as HTML for a notebook: no script, nothing from outside, legible on dark and on light.

Whatever comes from a run is escaped. Colours and fonts are the notebook's own; text on a colour of ours is black.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from torch import Tensor

from gradguard.detect.wording import cell, left, listed
from gradguard.functional.decay import LEFT

if TYPE_CHECKING:
    from gradguard.detect.finding import Finding
    from gradguard.detect.in_time import Profile

# Okabe and Ito 2008: told apart by the colour-blind; black on them has a contrast of 5.5 and more.
COLOURS = {"critical": "#D55E00", "warning": "#E69F00", "info": "#56B4E9"}
_CURVE = "#0072B2"
_GREY = "rgba(128,128,128,.45)"
_CELL = f"padding:2px 12px 2px 0;text-align:left;vertical-align:top;border-bottom:1px solid {_GREY}"
_WIDE, _HIGH, _SIDE, _FOOT, _HEAD = 420, 130, 44, 30, 8  # the drawing, in pixels; room at its left, bottom and top
_DECADES = 6  # below the largest that are drawn
_POINTS = 400  # of a curve


def finding_html(finding: Finding) -> str:
    """Give a finding as HTML: severity as a coloured word, what, where, since when, why, evidence, what to try."""
    severity = finding.severity.value
    steps = f"steps {finding.first_step} to {finding.last_step}"
    if finding.first_step == finding.last_step:
        steps = f"step {finding.first_step}"
    where = escape(listed(finding.where))
    where = f"<code>{where}</code>" if finding.where else where
    what = f"<b>{escape(finding.symptom.value)}</b> in {where}"
    parts = [
        f"<div>{_badge(severity, COLOURS[severity])} {what}: {steps}, {'ongoing' if finding.active else 'over'}</div>",
        f"<p style='margin:.4em 0'>{escape(finding.explanation)}</p>" if finding.explanation else "",
        _table((), ((name, cell(value)) for name, value in finding.evidence.items())),
    ]
    if finding.advice:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in finding.advice)
        parts.append(f"<div style='margin-top:.4em'>Try first:</div><ol style='margin:.2em 0 0 1.6em'>{items}</ol>")
    return _framed(parts, COLOURS[severity])


def profile_html(profile: Profile) -> str:
    """Give a profile as HTML: what is left in words, the curve of the memory, and how open the gates are."""
    rate, fit = profile.decay.rate, profile.decay.fit
    told = f"<div><b><code>{escape(profile.layer)}</code></b>: {escape(left(profile))}</div>"
    more = []
    if not math.isnan(rate):
        more.append(f"{math.exp(rate):.3g}-fold each step (r² {fit:.2f})")
    if profile.truncated is not None:
        more.append(f"begins at step {profile.truncated} with a state without history")
    gates = [
        (
            gate.gate,
            *(_share(of) for of in (gate.mean, gate.spread)),
            *(f"{float(of.mean()):.1%}" for of in (gate.shut, gate.open)),
        )
        for gate in profile.gates
    ]
    parts = [
        told,
        f"<div>{'; '.join(more)}</div>" if more else "",
        curve_svg(profile.memory, left(profile), profile.horizon),
    ]
    parts.append(_table(("gate", "mean", "spread", "shut", "open"), gates) if gates else "")
    return _framed(parts, _CURVE)


def curve_svg(sizes_L: Tensor, words: str, horizon: float = math.nan) -> str:
    """Draw sizes at lag 0, 1, 2 ... over the largest of them as a small SVG, in a logarithm down to a millionth.

    Args:
        sizes_L: >= 0; what is NaN is a gap, and of a long curve the extremes of neighbours are drawn.
        words: what a screen reader says of it.
        horizon: lag at which a mark lies on the line of 1 %; none where it is not finite.

    Returns:
        The drawing; nothing where no size is above 0, or one is infinite.
    """
    sizes = [float(size) for size in sizes_L.double().tolist()]
    largest = max((size for size in sizes if math.isfinite(size)), default=0.0)
    if not largest > 0 or any(math.isinf(size) for size in sizes):
        return ""
    last = max(1, len(sizes) - 1)

    def x(lag: float) -> float:
        return _SIDE + (_WIDE - _SIDE - 8) * lag / last

    def y(share: float) -> float:
        depth = min(_DECADES, -math.log10(share)) if share > 0 else _DECADES
        return _HEAD + (_HIGH - _HEAD - _FOOT) * depth / _DECADES

    runs = _runs(sizes, largest * 10.0**-_DECADES)
    curves = [" ".join(f"{x(lag):.1f},{y(sizes[lag] / largest):.1f}" for lag in run) for run in runs]
    bottom, text = y(0.0), "fill='currentColor' font-size='11' font-family='sans-serif'"
    grid = "".join(
        f"<line x1='{_SIDE}' x2='{_WIDE - 8}' y1='{y(share):.1f}' y2='{y(share):.1f}' stroke='currentColor' "
        f"stroke-opacity='{opacity}'{dash}/>"
        f"<text x='{_SIDE - 5}' y='{y(share) + 4:.1f}' text-anchor='end' {text}>{name}</text>"
        for share, name, opacity, dash in (
            (1.0, "1", 0.25, ""),
            (LEFT, "1 %", 0.6, " stroke-dasharray='2 3'"),
            (10.0**-_DECADES, "10⁻⁶", 0.25, ""),
        )
    )
    ends = "".join(
        f"<text x='{x(lag):.1f}' y='{bottom + 14:.1f}' text-anchor='{side}' {text}>{lag}</text>"
        for lag, side in ((0, "start"), (len(sizes) - 1, "end"))
    )
    middle = f"<text x='{x(last / 2):.1f}' y='{bottom + 25:.1f}' text-anchor='middle' {text}>lag, in steps back</text>"
    lines = "".join(
        f"<polyline points='{points}' fill='none' stroke='{_CURVE}' stroke-width='2' stroke-linecap='round'/>"
        for points in curves
    )
    size = f"width='{_WIDE}' height='{_HIGH}' viewBox='0 0 {_WIDE} {_HIGH}' style='display:block;max-width:100%'"
    dot = f"<circle cx='{x(horizon):.1f}' cy='{y(LEFT):.1f}' r='4' fill='{_CURVE}'/>" if math.isfinite(horizon) else ""
    return f"<svg {size} role='img' aria-label='{escape(words)}'>{grid}{ends}{middle}{lines}{dot}</svg>"


def _runs(sizes: Sequence[float], floor: float) -> list[list[int]]:
    """Give the lags to be drawn, as runs without a gap; of a long curve, the extremes of neighbours.

    A run ends with the first size below the floor; one of a single lag has it twice, so that a dot is drawn.
    """
    width = max(1, -(-2 * len(sizes) // _POINTS))
    runs: list[list[int]] = [[]]
    for start in range(0, len(sizes), width):
        lags = range(start, min(start + width, len(sizes)))
        there = [lag for lag in lags if not math.isnan(sizes[lag])]
        for lag in sorted({min(there, key=sizes.__getitem__), max(there, key=sizes.__getitem__)}) if there else ():
            if sizes[lag] >= floor or runs[-1]:
                runs[-1].append(lag)
            if sizes[lag] < floor:
                runs.append([])
        if len(there) < len(lags):
            runs.append([])
    return [run if len(run) > 1 else run * 2 for run in runs if run]


def _share(values: Tensor) -> str:
    return f"{float(values.mean()):.3f}"


def _badge(word: str, colour: str) -> str:
    style = f"background:{colour};color:#000;padding:1px 7px;border-radius:3px;font-weight:600"
    return f"<span style='{style}'>{escape(word)}</span>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Give cells, escaped, as a table; the first of each row heads it. Nothing where there is no row."""
    body = "".join(
        "<tr>"
        + f"<th scope='row' style='{_CELL};font-weight:400'>{escape(name)}</th>"
        + "".join(f"<td style='{_CELL}'>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for name, *cells in rows
    )
    top = "".join(f"<th scope='col' style='{_CELL}'>{escape(word)}</th>" for word in head)
    top = f"<tr>{top}</tr>" if top else ""
    style = "border-collapse:collapse;background:transparent;color:inherit;margin:.3em 0"
    return f"<table style='{style}'>{top}{body}</table>" if body else ""


def _framed(parts: Iterable[str], colour: str) -> str:
    style = f"color:inherit;border-left:4px solid {colour};padding:.2em 0 .2em .8em;margin:.4em 0;max-width:60em"
    return f"<div class='gradguard' style='{style}'>{''.join(parts)}</div>"
