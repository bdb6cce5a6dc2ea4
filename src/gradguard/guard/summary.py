"""A run in a few lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

import torch

from gradguard.detect import Finding, Severity, Symptom
from gradguard.detect.base import EARLY
from gradguard.detect.loss import AbstractLossDetector
from gradguard.guard.track import Track
from gradguard.record import History

GROWN = 2.0  # times the first loss: no run that learns ends there


def summary(tracks: Sequence[Track], history: History, findings: Sequence[Finding]) -> str:
    """Say how many steps there were, what was measured in them, the verdict, and what to try first."""
    lines = []
    for track in tracks:
        kind = type(track.optimizer).__name__
        layers = len(set(track.layout.layers))
        lines.append(f"{track.name} ({kind}): {track.step} steps, {len(track.params)} parameters in {layers} modules")
        lines += [f"  {line}" for line in _numbers(track, history, findings)]
    lines.append(_wrapped(f"Verdict: {_verdict(findings, tracks, history)}"))
    if len(tracks) == 1 and _lacks_loss(tracks[0], history):
        lines.append("No loss was recorded: spikes, swings and slow convergence are not looked for.")
    if (serious := _serious(findings)) and serious[0].advice:
        lines.append(_wrapped(f"Try first: {serious[0].advice[0]}"))
    return "\n".join([*lines, *(str(finding) for finding in findings)])


def _lacks_loss(track: Track, history: History) -> bool:
    judges = any(isinstance(detector, AbstractLossDetector) for detector in track.detectors)
    return judges and track.step >= EARLY and f"{track.prefix}loss" not in history


def _serious(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is not Severity.INFO]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)


def _verdict(findings: Sequence[Finding], tracks: Sequence[Track], history: History) -> str:
    steps = min(track.step for track in tracks)
    if not steps:
        return "no step was made yet."
    if serious := _serious(findings):
        whose = [f" ({finding.optimizer})" if len(tracks) > 1 else "" for finding in serious]
        return "; ".join(finding.brief + of for finding, of in zip(serious, whose, strict=True)) + "."
    if not any(track.detectors for track in tracks):
        return "none, there is no detector."
    if steps < EARLY:
        return f"nothing found, but {steps} steps are too few for a verdict."
    if any(f.symptom is Symptom.CLIPPED_UPSTREAM for f in findings):
        return "healthy as far as can be seen; the loop clips, which hides how large the raw norm gets."
    for track in tracks:
        loss = history.get(f"{track.prefix}loss")
        if loss is not None and 0 < GROWN * loss.last[0] < loss.last[-5:].min():
            grew = f"the loss grew from {loss.last[0]:.3g} to {loss.last[-1]:.3g}"
            return f"nothing found by {len(track.detectors)} rules, but {grew}: the learning rate may be far too large."
    return f"healthy, by {len(tracks[0].detectors)} rules."


def _numbers(track: Track, history: History, findings: Sequence[Finding]) -> list[str]:
    lines = []
    key = f"{track.prefix}grad_norm/total"
    if key in history:
        points = history[key]
        values = points.last[points.last.isfinite()]
        if len(values):
            high = torch.where(points.high.isfinite(), points.high, -torch.inf)
            after = [f for f in findings if f.symptom is Symptom.CLIPPED_UPSTREAM and f.optimizer == track.name]
            lines.append(
                f"gradient norm: median {values.median():.3g}, largest {high.max():.3g} at step "
                f"{int(points.steps[high.argmax()])}" + (" (after a clipping upstream)" if after else "")
            )
    ratios = {
        name: float(series.last[-1])
        for name in track.layout.names
        if (series := history.get(f"{track.prefix}update_ratio/{name}")) is not None and len(series.last)
    }
    known = {name: ratio for name, ratio in ratios.items() if ratio == ratio}
    if known:
        low, high_name = min(known, key=lambda n: known[n]), max(known, key=lambda n: known[n])
        lines.append(
            f"update/weight at the last sample: smallest {known[low]:.1e} in {low}, "
            f"largest {known[high_name]:.1e} in {high_name}"
        )
    moved = history.get(f"{track.prefix}update_norm/relative")
    if moved is not None and len(moved.last):
        high = torch.where(moved.high.isfinite(), moved.high, -torch.inf)
        lines.append(
            f"update/weight at every step, of a small sample: median {moved.last.nanmedian():.1e}, largest "
            f"{high.max():.1e} at step {int(moved.steps[high.argmax()])}"
        )
    loss = history.get(f"{track.prefix}loss")
    if loss is not None:
        lines.append(f"loss: {loss.last[0]:.4g} at step {int(loss.steps[0])}, {loss.last[-1]:.4g} at the end")
    lines += _in_time(track, history)
    lines += _treatment(track, history)
    if track.overflows:
        lines.append(f"fp16 overflows, skipped by the loss scaler: {track.overflows}")
    if track.non_finite:
        lines.append(f"steps with NaN or Inf: {track.non_finite}")
    return lines


def _in_time(track: Track, history: History) -> list[str]:
    """Say how far back the gradient of each recurrent layer got, at the last look."""
    start, end = f"{track.prefix}through_time/", "/horizon"
    names = [key[len(start) : -len(end)] for key in history if key.startswith(start) and key.endswith(end)]
    reach = {name: [float(history[f"{start}{name}/{of}"].last[-1]) for of in ("horizon", "length")] for name in names}
    known = [f"{name} {back:.0f} of {steps:.0f} steps" for name, (back, steps) in reach.items() if back == back]
    return [f"back through time, 1 % of the gradient is left after: {', '.join(known)}"] if known else []


def _treatment(track: Track, history: History) -> list[str]:
    """Say what was done to the gradients."""
    lines = []
    coefficient = history.get(f"{track.prefix}clip/coefficient")
    if coefficient is not None and len(coefficient.last):
        threshold = history.get(f"{track.prefix}clip/threshold")
        limit = f", threshold {threshold.last[-1]:.3g} at the end" if threshold is not None else ""
        kind = type(track.treatment.clip).__name__ if track.treatment is not None else "clipper"
        lines.append(f"{kind}: {track.clipped} steps clipped, smallest coefficient {coefficient.low.min():.2g}{limit}")
    anew = history.get(f"{track.prefix}clip/reanchored")
    if anew is not None:
        steps = ", ".join(map(str, anew.steps[:5].tolist())) + (", ..." if len(anew.steps) > 5 else "")
        lines.append(f"the clipper's statistics began anew after a lasting change of level: at steps {steps}")
    if track.treatment is not None and track.treatment.skipping is not None and track.treatment.skipping.total:
        lines.append(f"steps skipped, since their gradients were not finite: {track.treatment.skipping.total}")
    return lines
