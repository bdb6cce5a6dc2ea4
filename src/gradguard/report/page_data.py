"""What the page of a run shows, as containers, strings and numbers: the JSON in it.

Shape legend: S = steps, L = layers or lags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradguard.detect import Finding, Layout
from gradguard.detect.wording import cell
from gradguard.record import Event, Points, Run
from gradguard.report.gates_over_steps import GateHistory, gate_over_steps, gates_in
from gradguard.report.grid import CELLS, grid_data
from gradguard.report.layers import LayerTable, grad_norms_by_layer, update_ratios_by_layer
from gradguard.report.memory import layers_with_memory, memory_of
from gradguard.report.series import numbers, some_of, steps_where, was_changed
from gradguard.report.verdict import title_of, verdict

FORMAT = 1
LEAST_LEFT = 1e-6  # share of a gradient at the dark end of the colours
_SERIES = {
    "grad_norm": "grad_norm/total",
    "clipped_norm": "grad_norm/clipped",
    "threshold": "clip/threshold",
    "coefficient": "clip/coefficient",
    "loss": "loss",
    "learning_rate": "learning_rate",
    "moved": "update_norm/relative",
}
EVIDENCE = 40  # most entries of a table of evidence


def page_data(runs: Sequence[tuple[str, Run]], version: str) -> dict[str, Any]:
    """Give the JSON of a page: one run, or two to compare, each with its name."""
    cells = CELLS // max(1, sum(len(run.layouts) for _, run in runs))
    return {"format": FORMAT, "version": version, "runs": [run_data(name, run, cells) for name, run in runs]}


def run_data(name: str, run: Run, cells: int = CELLS) -> dict[str, Any]:
    """Give everything of one run, with so many cells of a heat map. Host sync: none. Mutates: nothing."""
    optimizers = [optimizer_data(run, layout, cells) for layout in run.layouts.values()]
    steps = max((one["steps"] for one in optimizers), default=0)
    whole = not run.problems and not run.manifest.status.startswith("failed")
    return {
        "name": name,
        "facts": facts(run, steps),
        "problems": list(run.problems),
        "verdict": verdict(run.findings, steps, whole=whole),
        "optimizers": optimizers,
    }


def facts(run: Run, steps: int) -> list[list[str]]:
    """Give what is known of a run beside its numbers."""
    manifest = run.manifest
    found = [["Status", manifest.status], ["Steps", f"{steps:,}"], ["Device", manifest.device]]
    found += [["Began", manifest.created], ["Last written", manifest.updated], ["Run", manifest.run]]
    for layout in run.layouts.values():
        layers, entries = len(set(layout.layers)), sum(layout.sizes)
        what = f"{entries:,} weights in {len(layout.names):,} parameters of {layers:,} layers"
        found.append([f"Trained by {layout.optimizer}", what])
    found.append(["Versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())])
    return found


def optimizer_data(run: Run, layout: Layout, cells: int) -> dict[str, Any]:
    """Give what one optimizer's parameters showed."""
    prefix = f"{layout.optimizer}/"  # where there are several optimizers, also before the others have stepped
    prefix = prefix if len(run.layouts) > 1 or any(key.startswith(f"{prefix}grad_norm/") for key in run.history) else ""
    history = {key[len(prefix) :]: run.history[key] for key in run.history if key.startswith(prefix)}
    coefficient = history.get("clip/coefficient")
    clipped = None if coefficient is None else was_changed(coefficient)
    layers, gates = layers_with_memory(history), gates_in(history)
    share = cells // max(1, len(layers) + len(gates))  # of all that was seen through time together
    findings = [one for one in run.findings if one.optimizer == layout.optimizer]
    events = [one for one in run.events if one.finding.optimizer == layout.optimizer]
    last = [int(points.steps[-1]) for points in history.values() if len(points.steps)]  # an overflow has no gradient
    return {
        "name": layout.optimizer,
        "steps": max([*last, *(one.last_step for one in findings), *(one.step for one in events)], default=0),
        "series": some_of(history, _SERIES),
        "merged": coefficient is not None and bool((coefficient.steps.diff() > 1).any()),
        "marks": {
            "clipped": steps_where(coefficient, clipped),
            "skipped": steps_where(history.get("skipped")),
            "reanchored": steps_where(history.get("clip/reanchored")),
        },
        "layers": {
            "names": list(dict.fromkeys(layout.layers)),
            "grad": _layer_grid(grad_norms_by_layer(history, layout), cells),
            "ratio": _layer_grid(update_ratios_by_layer(history, layout), cells),
        },
        "memory": [_memory_data(history, layer, share) for layer in layers],
        "gates": [_gate_data(gate_over_steps(history, gate, layer), share) for layer, gate in gates],
        "findings": [finding_data(one, layout) for one in findings],
        "events": [event_data(one, findings) for one in events],
    }


def _layer_grid(table: LayerTable, cells: int) -> dict[str, Any] | None:
    return grid_data(table.steps, table.values, cells=cells) if len(table.steps) and len(table.layers) else None


def _memory_data(history: Mapping[str, Points], layer: str, cells: int) -> dict[str, Any]:
    memory = memory_of(history, layer)
    grid = grid_data(memory.steps, memory.shares, least=LEAST_LEFT, most=1.0, cells=cells)
    grid["y"] = memory.lags.tolist()
    lines = {"horizon": memory.horizons, "length": memory.lengths}
    return {"layer": layer, "grid": grid} | {
        name: {"x": memory.steps.tolist(), "y": numbers(values)} for name, values in lines.items()
    }


def _gate_data(found: GateHistory, cells: int) -> dict[str, Any]:
    """Give which share of a gate's values was where, over the sampled steps."""
    grid = grid_data(found.steps, found.shares, log=False, least=0.0, most=1.0, cells=cells)
    mean = {"x": found.steps.tolist(), "y": numbers(found.means)}
    return {"layer": found.layer, "gate": found.gate, "grid": grid, "mean": mean}


def finding_data(finding: Finding, layout: Layout) -> dict[str, Any]:
    """Give a finding, with the rows of the heat maps that it names."""
    rows = {layer: row for row, layer in enumerate(dict.fromkeys(layout.layers))}
    owner = dict(zip(layout.names, layout.layers, strict=True))
    named = (rows.get(place, rows[owner[place]] if place in owner else -1) for place in finding.where)
    return {
        "symptom": finding.symptom.value,
        "title": title_of(finding),
        "severity": finding.severity.value,
        "active": finding.active,
        "where": list(finding.where),
        "optimizer": finding.optimizer,
        "first_step": finding.first_step,
        "last_step": finding.last_step,
        "explanation": finding.explanation,
        "evidence": [[name, cell(value, EVIDENCE)] for name, value in finding.evidence.items()],
        "advice": list(finding.advice),
        "layers": sorted({row for row in named if row >= 0}),
    }


def event_data(event: Event, findings: Sequence[Finding]) -> dict[str, Any]:
    """Give an event, with the place of its finding among those of the optimizer, if it is still there."""
    symptoms = [finding.symptom for finding in findings]
    is_there = event.finding.symptom in symptoms
    return {
        "step": event.step,
        "symptom": event.finding.symptom.value,
        "severity": event.finding.severity.value,
        "active": event.finding.active,
        "finding": symptoms.index(event.finding.symptom) if is_there else None,
    }
