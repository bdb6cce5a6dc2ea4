"""The pictures of ``docs/symptoms``: what a guard records of a program with a planted fault, and of one without.

Every run is one of the fault corpus (``benchmarks/faults``), seed 0, or a small variant from below, under a guard with
its defaults; that of ``vanishing_time`` is told how far back its task reaches. Printed is what the guard said of each.
``python3 run.py bench symptoms --figure docs/images/symptoms`` draws all, in a minute on one core; names of symptoms
behind that draw only these.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.faults.corpus import corpus
from benchmarks.faults.dense import mlp, train
from benchmarks.faults.guarded import Guarded
from benchmarks.faults.planting import cosine, gain
from benchmarks.faults.program import Loop, Program
from benchmarks.faults.running import run
from benchmarks.symptom_panels import (
    ILL,
    WELL,
    Run,
    dependence,
    gate,
    gradients,
    losses,
    memory,
    reached,
    shares,
    totals,
    updates,
)
from benchmarks.timing import machine
from gradguard.clip import NormClip
from gradguard.detect import Symptom
from gradguard.probe import ThroughTime

_MOMENTUM = partial(train, optimizer="momentum")
VARIANTS: Mapping[str, Callable[[float], Loop]] = {  # of dense-momentum
    "dense-six": partial(_MOMENTUM, model=partial(mlp, depth=5), change=gain(2**0.5)),
    "dense-falling": partial(_MOMENTUM, schedule=cosine()),
    "dense-guard-clips-hard": lambda lr: _MOMENTUM(lr, clip=NormClip(1e-2)),
    "dense-guard-clips": lambda lr: _MOMENTUM(lr, clip=NormClip(1.5)),
}
Draw = Callable[[Any, Run], None]


class Case(NamedTuple):
    """Which runs show a symptom, and what of them is drawn; the healthy one is the sibling's unless it is named."""

    program: str
    lr: float
    draw: Draw
    title: str
    ill: str
    well: str
    healthy: tuple[str, float] | None = None
    lag: int | None = None  # how far back the task reaches, where the guard is told; in twice as long a run


class Keeping(Guarded):
    """Remembers the parameters, too."""

    def start(self, program: Program, loop: Loop) -> None:
        super().start(program, loop)
        (model,) = loop.models.values()
        self.sizes = {name: p.numel() for name, p in model.named_parameters()}
        self.weights = tuple(name for name, p in model.named_parameters() if p.ndim > 1)


@cache
def watched(name: str, lr: float, colour: str, lag: int | None = None) -> Run:
    """Run a program of the corpus, or a variant, under a guard."""
    program = corpus()[name] if name in corpus() else replace(corpus()["dense-momentum"], make=VARIANTS[name])
    if lag:
        program = replace(program, steps=2 * program.steps, through_time=ThroughTime(lag=lag))
    watcher = Keeping()
    run(program, lr, 0, [watcher])
    guard = watcher.guard
    assert guard is not None
    return Run(guard.history, guard.diagnose(), watcher.noted, watcher.sizes, watcher.weights, colour)


S = Symptom
CASES: Mapping[Symptom, Case] = {
    S.NON_FINITE: Case("dense-nan", 1e-3, partial(totals, yscale="linear"), "One NaN, and the run is lost",
        "a NaN in the batch of step 250", "the same without it"),
    S.EXPLODING_DEPTH: Case("dense-deep-tanh-chaotic", 3e-4, gradients, "The gradient grows from layer to layer",
        "twenty layers of tanh, weights four times too large", "twelve, weights as they should be"),
    S.EXPLODING_TIME: Case("rnn-recall-large-weights", 1e-3, partial(memory, at=1e3, words="a thousandfold"),
        "The gradient grows from step to step", "recurrent weights three times a rotation", "those of a rotation"),
    S.VANISHING_DEPTH: Case("dense-deep-sigmoid", 1e-3, gradients, "The gradient fades from layer to layer",
        "eleven layers, sigmoids", "eleven layers, GELU behind layer norms"),
    S.VANISHING_TIME: Case("lstm-recall-forgets", 5e-3, partial(memory, at=0.01, words="1 % left: the horizon"),
        "The gradient fades before it gets to where it matters", "an LSTM that forgets four fifths at each step",
        "the same, its forget gates begun open", lag=49),
    S.DEAD_UNITS: Case("dense-dead-burst", 1e-3, partial(shares, what="silent"), "Units that never fire again",
        "five first steps, a thousand times too large", "the same without them"),
    S.SATURATED_UNITS: Case("dense-saturated-unscaled", 0.03, partial(shares, what="saturated"),
        "Units that sit at an end", "pixels from 0 to 255 before a tanh", "the same pixels from -1 to 1"),
    S.SATURATED_GATES: Case("lstm-recall-shut", 1e-2, partial(gate, letter="f"), "Gates that never open",
        "an LSTM whose forget gates begin shut", "the same, begun open"),
    S.POOR_INITIALISATION: Case("dense-tiny", 0.03, dependence, "The signal does not get through",
        "six layers, weights near 0.001", "six layers, weights by He's rule", ("dense-six", 0.03)),
    S.UPDATE_TOO_LARGE: Case("dense-rate-300", 0.3, partial(updates, at=0.1, words="a tenth of the weight",
        lowest=1e-6), "Steps as large as the weights", "Adam at a learning rate of 0.3", "at 0.001"),
    S.UPDATE_TOO_SMALL: Case("dense-rate-none", 1e-10, partial(updates, at=1e-7, words="1e-7 of the weight",
        lowest=1e-11), "Steps that move nothing", "Adam at a learning rate of 1e-10", "at 0.001"),
    S.NO_GRADIENT: Case("dense-detached", 3e-3, reached, "Parameters that the loss does not reach",
        "a detach() before the last layer", "the same without it"),
    S.LOSS_SPIKE: Case("dense-spike", 0.05, partial(losses, of=S.LOSS_SPIKE, yscale="log"), "The loss jumps back up",
        "seven corrupt batches from step 480 on", "the same without them", ("dense-falling", 0.05)),
    S.OSCILLATING_LOSS: Case("dense-no-zero-grad", 0.1, partial(losses, of=S.OSCILLATING_LOSS, yscale="log"),
        "The loss does not settle", "gradients that are never set to zero", "set to zero before each backward pass"),
    S.SLOW_CONVERGENCE: Case("dense-rate-slow", 3e-6, partial(losses, of=S.SLOW_CONVERGENCE), "The loss hardly falls",
        "learning rate 3e-6", "learning rate 0.001"),
    S.CLIPPED_TOO_OFTEN: Case("dense-guard-clips-hard", 0.03, totals, "A limit far below all norms", "clipped to 0.01",
        "clipped to 1.5", ("dense-guard-clips", 0.03)),
    S.CLIPPED_UPSTREAM: Case("dense-overclipped", 0.03, totals, "Somebody clipped before the guard could measure",
        "the loop clips to 0.01 before the step", "the loop does not clip"),
}  # fmt: skip


def healthy(case: Case) -> tuple[str, float]:
    """Give the healthy program of a case, and its learning rate."""
    if case.healthy:
        return case.healthy
    program = corpus()[case.program]
    place = min(range(len(program.rates)), key=lambda i: abs(program.rates[i] - case.lr))
    return program.sibling or "", corpus()[program.sibling or ""].rates[place]


def draw(symptom: Symptom, path: Path) -> None:
    """Draw a symptom: the sick run on the left, the healthy one on the right, on the same axes."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from PIL import Image

    case = CASES[symptom]
    figure = Figure(figsize=(9, 3.6), dpi=100, layout="constrained")
    figure.suptitle(f"{symptom.value}: {case.title[0].lower()}{case.title[1:]}", fontweight="bold")
    runs = watched(case.program, case.lr, ILL, case.lag), watched(*healthy(case), WELL, case.lag)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for ax, it, words in zip(panels, runs, (f"sick: {case.ill}", f"healthy: {case.well}"), strict=True):
        case.draw(ax, it)
        ax.set_title(words, color=it.colour, fontsize="medium")
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        if ax.get_xscale() == "linear" and ax.get_xlim()[1] > 1:
            ax.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        if ax.get_legend_handles_labels()[0]:
            ax.legend(fontsize="small")
    panels[1].set_ylabel("")
    file = path / f"{symptom.value}.png"
    figure.savefig(file)
    Image.open(file).convert("RGB").quantize(48).save(file, optimize=True)
    for name, it in zip((case.program, healthy(case)[0]), runs, strict=True):
        said = "; ".join(f"{f.severity.value} {f.symptom.value}, noticed at {it.noted[f.symptom]}" for f in it.findings)
        print(f"{symptom.value}: {name}: {said or 'nothing'} ({file.stat().st_size / 1024:.0f} KB)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figure", type=Path, required=True, help="folder for the pictures; needs matplotlib")
    parser.add_argument("symptoms", nargs="*", type=Symptom, help="all by default")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.figure.mkdir(parents=True, exist_ok=True)
    print(machine())
    for symptom in args.symptoms or CASES:
        draw(symptom, args.figure)


if __name__ == "__main__":
    main()
