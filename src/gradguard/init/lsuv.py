"""Weights that give every layer's output the same variance on real data, one layer after another."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn

from gradguard.arguments import number, positive, whole_number
from gradguard.errors import GradGuardWarning
from gradguard.functional import tensors_in
from gradguard.gates import gates_of
from gradguard.init.activations import feed_forward
from gradguard.init.calls import Call, calls_of, inputs_of
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft, set_bias_
from gradguard.init.drawing import checked_generator, draw_
from gradguard.init.layers import layers_of, plain_modules
from gradguard.init.measures import deviation
from gradguard.init.trial import trial, unless_it_fails

WHO = "lsuv_"


def lsuv_(
    model: nn.Module,
    example_input: Any,
    *,
    std: float = 1.0,
    tolerance: float = 0.1,
    max_iterations: int = 10,
    generator: Generator | None = None,
) -> Changes:
    r"""Initialise by layer-sequential unit variance: orthogonal weights, each scaled by what the data make of it.

    .. math:: W_l \leftarrow W_l \cdot \mathrm{std} / \sqrt{\operatorname{Var}(W_l x_l)} \quad\text{while}\quad
        |\operatorname{Var}(W_l x_l) / \mathrm{std}^2 - 1| \ge \mathrm{tolerance}

    layer after layer, in the order in which they run, every Linear and Conv. The output of a recurrent layer is bounded
    by its gates, whatever the weights: there, what each gate gets from the input, :math:`W_{ih} x_t`, is brought to
    that variance, for every layer and direction, and the recurrent blocks stay orthogonal. A cell in a loop is taken
    over all of its steps. It needs no formula for the activation, so it is the one to take where there is none; a batch
    that is like the data matters.

    Args:
        model: any model. It runs as in training, but for dropout.
        example_input: a batch: a tensor, a tuple of arguments, or a dict of keyword arguments.
        std: of the outputs; > 0.
        tolerance: relative, of the variance; > 0.
        max_iterations: most scalings of a layer; >= 1. One that is still off is named in a warning.
        generator: to draw from; None for torch's own.

    Returns:
        The standard deviation of each output, of the model as it was and as it is now; then the biases that became 0.

    Raises:
        ValueError: an argument out of range; the model fails on the example; a layer's output does not vary on it, or
            is not finite; no layer runs. Nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Mishkin and Matas 2016, "All you need is a good init", arXiv 1511.06422, algorithm 1. Host sync: several a
    layer. Mutates: weights of these layers, and the biases of Linear and Conv, which become 0; no buffer, no random
    generator but the one it draws from.

    >>> net = nn.Sequential(nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64))
    >>> [round(change.after, 3) for change in lsuv_(net, torch.randn(100, 16), tolerance=1e-3)]
    [1.0, 1.0, 0.0, 0.0]
    """
    wanted, tolerance = positive(WHO, "std", std), number(WHO, "tolerance", tolerance, above=0)
    iterations = whole_number(WHO, "max_iterations", max_iterations)
    checked_generator(WHO, generator)
    layers = feed_forward(WHO, model)
    recurrent = {path: module for path, module in plain_modules(WHO, model) if gates_of(module) is not None}
    with unless_it_fails(model), trial(WHO, model, example_input) as run:
        calls = calls_of({**layers, **recurrent}, run)
        if not calls:
            raise ValueError(f"{WHO} needs a Linear, Conv or recurrent layer that runs on the example input.")
        parts = [part for path in calls for part in _parts(path, layers.get(path) or recurrent[path])]
        before = {name: found for part in parts for name, found in _deviations(part, calls[part.path]).items()}
        biases = Changes(change for part in parts for change in _orthogonal(part, generator))
        for part in parts:
            for _ in range(iterations):
                if not _scale(part, run, wanted, tolerance):
                    break
        calls = calls_of({**layers, **recurrent}, run)
        ran = [part for part in parts if part.path in calls]
        after = {name: found for part in ran for name, found in _deviations(part, calls[part.path]).items()}
    if off := [name for name, found in after.items() if _is_off(found, wanted, tolerance)]:
        warnings.warn(
            f"{WHO} left the variance of {', '.join(off)} off by more than {tolerance:g} after {iterations} scalings: "
            "a layer that feeds itself may need more of them (max_iterations), a router has sent other data.",
            GradGuardWarning,
            stacklevel=2,
        )
    return Changes(Change(name, "output std", before[name], after[name]) for name in after) + biases


class _Part(NamedTuple):
    """What is scaled at a time: a Linear or Conv, or all directions of one layer of a recurrent module."""

    path: str
    module: nn.Module
    suffixes: tuple[str, ...] = ()


def _parts(path: str, module: nn.Module) -> list[_Part]:
    if gates_of(module) is None:
        return [_Part(path, module)]
    by_layer: dict[str, list[str]] = {}
    for layer in layers_of(WHO, module):
        by_layer.setdefault(layer.suffix.removesuffix("_reverse"), []).append(layer.suffix)
    return [_Part(path, module, tuple(suffixes)) for suffixes in by_layer.values()]


def _blocks(part: _Part, draft: Draft, calls: list[Call]) -> list[tuple[str, Tensor, Tensor]]:
    """Give what can be scaled by itself: its name, the weights, and what they make of the input."""
    if not part.suffixes:
        outputs = torch.cat([t.flatten() for call in calls for t in tensors_in(call.output)])
        return [(f"{part.path}.weight" if part.path else "weight", draft(part.module, "weight"), outputs)]
    return [
        (name, block, rows.to(block.dtype) @ block.T)
        for layer, rows in inputs_of(WHO, part.path, part.module, calls)
        if layer.suffix in part.suffixes
        for name, block in layer.blocks(draft, "input")
    ]


def _deviations(part: _Part, calls: list[Call]) -> dict[str, float]:
    return {name: deviation(made) for name, _, made in _blocks(part, Draft(WHO), calls)}


def _orthogonal(part: _Part, generator: Generator | None) -> Changes:
    """Draw orthogonal weights; the biases that became 0."""
    draft, biases = Draft(WHO), Changes()
    if part.suffixes:
        layers = [layer for layer in layers_of(WHO, part.module) if layer.suffix in part.suffixes]
        blocks = [block for layer in layers for _, block in layer.blocks(draft, "both")]
    else:
        blocks = [draft(part.module, "weight")]
        biases = set_bias_(draft, part.module, part.path, 0.0)
    for block in blocks:
        draw_(block, generator, lambda fresh: nn.init.orthogonal_(fresh, generator=generator))
    draft.write()
    return biases


def _scale(part: _Part, run: Callable[[], Any], wanted: float, tolerance: float) -> bool:
    """Scale once; say whether there was anything to scale."""
    draft, is_off = Draft(WHO), False
    calls = calls_of({part.path: part.module}, run)  # none where a new router sends nothing there
    for name, block, made in _blocks(part, draft, calls[part.path]) if calls else []:
        found = deviation(made)
        if not 0 < found < math.inf:
            raise ValueError(
                f"{WHO} can't scale {name}: on the example input the standard deviation of what it gives is {found}. "
                "Is the input constant, or cut off by what stands before?"
            )
        if _is_off(found, wanted, tolerance):
            block.mul_(wanted / found)
            is_off = True
    draft.write()
    return is_off


def _is_off(found: float, wanted: float, tolerance: float) -> bool:
    return abs(found**2 / wanted**2 - 1) >= tolerance
