"""The panels of ``benchmarks.symptoms``: one quantity of one run each, on axes that two runs share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch

from gradguard.detect import Finding, Symptom
from gradguard.record import Points
from gradguard.report import memory_of
from gradguard.report.canvas import COLOURS

ILL, WELL = COLOURS[1], COLOURS[0]
SHUT = 0.026  # below this a sigmoid is saturated


class Run(NamedTuple):
    """What a guard kept of one run: its series, what it said, when it noticed each symptom, weights by name."""

    history: Mapping[str, Points]
    findings: list[Finding]
    noted: Mapping[str, int]
    sizes: Mapping[str, int]
    weights: tuple[str, ...]
    colour: str


def series(it: Run, name: str) -> tuple[Any, Any]:
    """Give steps and values of a series, for an axis."""
    points = it.history[name]
    return points.steps.numpy(), points.last.double().numpy()


def layers(it: Run, kind: str) -> Iterator[str]:
    """Give the layers that have a series of a kind, ``activation/<layer>/rms``, in order."""
    start, end = kind.split("<layer>")
    return (k.removeprefix(start).removesuffix(end) for k in it.history if k.startswith(start) and k.endswith(end))


def gradients(ax: Any, it: Run) -> None:
    """Draw the size of the gradient of each layer's weights: median over the steps, and where most of them lie."""
    norms = torch.stack([it.history[f"grad_norm/{name}"].last.double() for name in it.weights], 1)
    sizes = norms / torch.tensor([it.sizes[name] for name in it.weights]).sqrt()
    low, middle, high = sizes.quantile(torch.tensor([0.05, 0.5, 0.95], dtype=torch.float64), dim=0)
    depth = range(1, len(it.weights) + 1)
    ax.fill_between(depth, low, high, color=it.colour, alpha=0.25, linewidth=0, label="nine steps in ten")
    ax.plot(depth, middle, "o-", color=it.colour, label="median step")
    ax.set(yscale="log", xlabel="layer (the loss is behind the last one)", ylabel="size of a gradient's entry")


def dependence(ax: Any, it: Run) -> None:
    """Draw how much of each layer's output depends on the input, at the first step."""
    of = layers(it, "activation/<layer>/varies")
    values = [float(it.history[f"activation/{layer}/varies"].last[0]) for layer in of]
    ax.plot(range(1, len(values) + 1), values, "o-", color=it.colour, label="at step 1")
    limit(ax, 0.01, "a hundredth")
    ax.set(yscale="log", xlabel="layer", ylabel="share of its output that\ndepends on the input")


def shares(ax: Any, it: Run, *, what: str) -> None:
    """Draw the share of units of each layer that do nothing, over the steps."""
    for style, layer in zip(("o-", "s--", "^:"), layers(it, f"activation/<layer>/{what}"), strict=False):
        steps, values = series(it, f"activation/{layer}/{what}")
        ax.plot(steps, values, style, color=it.colour, markersize=4, label=f"behind layer {layer}")
    limit(ax, *((0.7, "seven units in ten") if what == "silent" else (0.5, "half of a layer")))
    ax.set(xscale="log", ylim=(-0.04, 1.04), xlabel="step", ylabel=f"share of units that are {what}")


def updates(ax: Any, it: Run, *, at: float, words: str, lowest: float) -> None:
    """Draw update over weight norm, of each weight matrix."""
    ax.axhspan(1e-4, 1e-2, color="0.9", zorder=0, label="usual")
    for style, name in zip(("o-", "s--", "^:", "d-."), it.weights, strict=False):
        ax.plot(*series(it, f"update_ratio/{name}"), style, color=it.colour, markersize=4, label=name)
    limit(ax, at, words)
    ax.set(yscale="log", xscale="log", ylim=(lowest, 10), xlabel="step", ylabel="update / weight")


def losses(ax: Any, it: Run, *, of: Symptom, yscale: str = "linear") -> None:
    """Draw the loss of each step, and where the guard spoke."""
    steps, values = series(it, "loss")
    ax.plot(steps, values, color=it.colour, linewidth=1, label="loss")
    if of.value in it.noted:
        ax.axvline(it.noted[of.value], color="black", linestyle="--", label=f"noticed at step {it.noted[of.value]}")
    ax.set(xlabel="step", ylabel="loss", yscale=yscale)


def memory(ax: Any, it: Run, *, at: float, words: str) -> None:
    """Draw what is left of the gradient over the lag, at the first, a middle and the last look."""
    found = memory_of(it.history, None)
    for row, style in (0, ":"), (len(found.steps) // 2, "--"), (len(found.steps) - 1, "-"):
        sizes = torch.tensor([float(it.history[f"memory/{found.layer}/{lag}"].last[row]) for lag in found.lags])
        ax.plot(found.lags, sizes / sizes[0], style, color=it.colour, label=f"step {int(found.steps[row])}")
    limit(ax, at, words)
    ax.set(yscale="log", xlabel="steps back from the end", ylabel="gradient, over that at the end")
    if at < 1:
        ax.set_ylim(1e-8, 3)


def gate(ax: Any, it: Run, *, letter: str) -> None:
    """Draw how open a gate is at the last look, as a histogram."""
    (layer,) = layers(it, f"gates/<layer>/{letter}/mean")
    bins = [float(it.history[f"gates/{layer}/{letter}/bin_{k}"].last[-1]) for k in range(20)]
    ax.bar([(k + 0.5) / 20 for k in range(20)], bins, width=0.045, color=it.colour, label="values at the last look")
    ax.axvline(SHUT, color="black", linestyle="--", label="shut: left of this line")
    ax.set(xlim=(0, 1), ylim=(0, 1.04), xlabel="forget gate, from shut to open", ylabel="share of all values")


def reached(ax: Any, it: Run) -> None:
    """Draw the median norm of each parameter's gradient as bars; none as a word."""
    names = list(it.sizes)[::-1]
    norms = [float(it.history[f"grad_norm/{name}"].last.median()) for name in names]
    ax.barh(names, norms, color=it.colour)
    for row, norm in enumerate(norms):
        if norm == 0:
            ax.text(0.02, row, "none, at any step", transform=ax.get_yaxis_transform(), va="center", color=it.colour)
    ax.set(xscale="log", xlim=(1e-3, 1), xlabel="norm of the gradient (median of all steps)")


def totals(ax: Any, it: Run, *, yscale: str = "log") -> None:
    """Draw the total norm at each step, the limit of the guard's clipper, and the steps where it is no number."""
    steps, values = series(it, "grad_norm/total")
    ax.plot(steps, values, color=it.colour, linewidth=1, label="norm of all gradients")
    bad = it.history["grad_norm/total"].steps[~torch.from_numpy(values).isfinite()].tolist()
    if bad:
        ax.axvspan(bad[0], bad[-1], color=it.colour, alpha=0.2, linewidth=0, label="NaN at every step")
        ax.axvline(bad[0], color=it.colour, linestyle="--", label=f"first NaN: step {bad[0]}")
    if "clip/threshold" in it.history:
        clipped = (it.history["clip/coefficient"].last < 1).double().mean()
        limit(ax, float(it.history["clip/threshold"].last[0]), f"limit: {100 * clipped:.0f} % of the steps are clipped")
    ax.set(yscale=yscale, xlabel="step", ylabel="norm of all gradients")


def limit(ax: Any, at: float, words: str) -> None:
    """Draw a level with words in the legend."""
    ax.axhline(at, color="black", linestyle="--", linewidth=1, label=words)
