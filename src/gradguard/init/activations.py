"""Weights by the activation that really follows each layer."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Generator, Tensor, nn

from gradguard.arguments import number
from gradguard.init.changes import Change, Changes
from gradguard.init.draft import Draft, set_bias_
from gradguard.init.drawing import checked_generator, draw_
from gradguard.init.flow import Node, flow_of
from gradguard.init.gains import FEED_FORWARD, LINEAR, Activation, activation_of
from gradguard.init.layers import plain_modules
from gradguard.init.measures import deviation

# Where the way ends: what mixes features, or bends them in a way for which there is no gain.
_ENDS = {"mm", "addmm", "bmm", "baddbmm", "convolution", "matmul", "linear", "_trilinear", "_softmax", "_log_softmax"}
_ENDS |= {"exp", "log", "pow", "abs", "sqrt", "rsqrt", "sin", "cos", "erf", "reciprocal", "square", "var", "std"}
_NORMS = {"native_batch_norm", "native_layer_norm", "native_group_norm", "_fused_rms_norm", "cudnn_batch_norm"}
_PLAIN = {"mul", "add", "sub", "div", "neg", "pow", "square", "mean", "sum", "view", "unsqueeze", "expand", "_to_copy"}
_SCALES = {"rsqrt", "sqrt", "var", "std", "linalg_vector_norm"}  # a norm that is written out has one of them


class Follows(NamedTuple):
    """What comes after a layer.

    Attributes:
        activation: the first one, or linear.
        normed: whether a norm stands between, so that the size of the weights matters little.
    """

    activation: Activation
    normed: bool


def for_activations_(
    model: nn.Module,
    example_input: Any,
    *,
    distribution: Literal["normal", "uniform"] = "normal",
    bias: float | None = 0.0,
    generator: Generator | None = None,
) -> Changes:
    r"""Initialise every Linear and Conv by Xavier's or He's formula, as the activation that follows it wants.

    What follows is found by running the model once: ``nn.ReLU()``, ``F.relu`` and ``clamp(min=0)`` are the same, and a
    SiLU or GELU may be written out. Norms, dropout, pooling, reshaping and residual sums are looked through.

    .. math:: \mathrm{std} &= g \sqrt{2 / (\mathrm{fan_{in}} + \mathrm{fan_{out}})}
        && \text{tanh: } g = 5/3; \text{ sigmoid, or none: } g = 1 \\
        \mathrm{std} &= g / \sqrt{\mathrm{fan_{in}}}
        && \text{ReLU: } g = \sqrt 2; \text{ SELU: } g = 1; \text{ others: } g = 1 / \sqrt{E f(z)^2}

    Recurrent layers are left alone (:func:`orthogonal_`, :func:`xavier_`), and so are layers that the example does not
    run, such as the projections inside of ``nn.MultiheadAttention``. A layer that feeds several activations, as the
    gates of a hand-written cell, counts as linear.

    Args:
        model: any model.
        example_input: what it is run on: a tensor, a tuple of arguments, or a dict of keyword arguments.
        distribution: ``"normal"`` or ``"uniform"``.
        bias: what biases become; None leaves them alone, such as that of an output whose mean is known.
        generator: to draw from; None for torch's own.

    Returns:
        The standard deviation of each weight, before and after, and the activation; then the biases that were set.

    Raises:
        ValueError: the model fails on the example, or runs no Linear and no Conv; nothing is changed.
        TypeError: no module, or one that was scripted or compiled.

    Source: Glorot and Bengio 2010; He et al. 2015, arXiv 1502.01852; Klambauer et al. 2017 for SELU. Host sync: several
    a layer. Mutates: weights and biases of these layers; no buffer, no random generator but the one it draws from.

    >>> net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh())
    >>> [change.note for change in for_activations_(net, torch.randn(8, 64), bias=None)]
    ['relu: kaiming, gain 1.414', 'tanh: xavier, gain 1.667']
    """
    who = "for_activations_"
    checked_generator(who, generator)
    if distribution not in ("normal", "uniform"):
        raise ValueError(f"{who} needs distribution to be 'normal' or 'uniform', got {distribution!r}.")
    value = None if bias is None else number(who, "bias", bias)
    layers = feed_forward(who, model)
    found = activations(flow_of(who, model, example_input, layers))
    if not found:
        raise ValueError(f"{who} needs a Linear or Conv that runs on the example input; this model has none.")
    draft, changes, biases = Draft(who), Changes(), Changes()
    with torch.no_grad():
        drawn: set[int] = set()
        for path, (follows, _) in found.items():
            layer, name = layers[path], f"{path}.weight" if path else "weight"
            weight, std = draft(layer, "weight"), follows.std(layer)
            if value is not None:
                biases += set_bias_(draft, layer, path, value)
            if id(weight) in drawn or not weight.numel():
                continue  # tied weights are the first layer's
            drawn.add(id(weight))
            before = deviation(weight)

            def fill_(fresh: Tensor, std: float = std) -> Tensor:
                if distribution == "normal":
                    return fresh.normal_(0.0, std, generator=generator)
                return fresh.uniform_(-std * math.sqrt(3), std * math.sqrt(3), generator=generator)

            draw_(weight, generator, fill_)
            note = f"{follows.name}: {follows.rule}, gain {follows.gain:.4g}"
            changes += Changes([Change(name, "std", before, deviation(weight), note)])
        draft.write()
    return changes + biases


def feed_forward(who: str, model: nn.Module) -> dict[str, nn.Module]:
    """Give the Linear and Conv layers of a model by path."""
    return {path: module for path, module in plain_modules(who, model) if isinstance(module, FEED_FORWARD)}


def activations(nodes: Sequence[Node]) -> dict[str, Follows]:
    """Say what follows each layer of a graph, in the order in which they run."""
    consumers = defaultdict(list)
    for i, node in enumerate(nodes):
        for source in node.inputs:
            consumers[source].append(i)
    found: dict[str, set[Activation]] = {}
    normed: set[str] = set()
    for i, node in enumerate(nodes):
        if node.layer is not None:
            reached, is_normed = _after(i, nodes, consumers)
            found.setdefault(node.layer, set()).update(reached)
            normed |= {node.layer} if is_normed else set()
    return {layer: Follows(_one_of(kinds), layer in normed) for layer, kinds in found.items()}


def _one_of(kinds: set[Activation]) -> Activation:
    """Choose: where several calls or consumers disagree, no gain is right for all."""
    if len(kinds) == 1:
        return next(iter(kinds))
    return LINEAR._replace(name=" and ".join(sorted(kind.name for kind in kinds)) or LINEAR.name)


def _after(start: int, nodes: Sequence[Node], consumers: Mapping[int, list[int]]) -> tuple[set[Activation], bool]:
    """Follow what a node made as far as the first activation on each way; say whether a norm was passed."""
    reached: dict[int, Activation] = {}
    seen, todo, is_normed = {start}, list(consumers.get(start, ())), False
    while todo:
        i = todo.pop(0)
        if i in seen:
            continue
        seen.add(i)
        node = nodes[i]
        if node.layer is not None or node.op in _ENDS or node.op.startswith("_scaled_dot_product"):
            continue
        activation = activation_of(node.op, node.numbers)
        if activation is not None:
            reached[i] = activation
            continue
        if node.op == "mul" and len(node.inputs) > 1:
            made_of = _operations(start, i, nodes)
            gate = frozenset().union(*(made_of.get(j, {"other"}) for j in node.inputs))
            whole = _gated(gate) if any(j in seen for j in node.inputs) else None
            if whole is not None:
                return {whole}, is_normed
            if not gate & _SCALES or gate - _SCALES - _PLAIN:
                continue
            is_normed = True
        is_normed |= node.op in _NORMS
        todo += consumers.get(i, ())
    return set(reached.values()), is_normed


def _operations(start: int, end: int, nodes: Sequence[Node]) -> dict[int, frozenset[str]]:
    """Give, for each node up to the end that was made from the start alone, what was done to it."""
    found: dict[int, frozenset[str]] = {start: frozenset()}
    for i in range(start + 1, end):
        node = nodes[i]
        if node.layer is None and node.inputs and all(j in found for j in node.inputs):
            found[i] = frozenset().union({node.op}, *(found[j] for j in node.inputs))
    return found


def _gated(operations: frozenset[str]) -> Activation | None:
    """Name an activation that is written as a product of the input with a curve of it."""
    if operations & {"split", "split_with_sizes", "slice", "select", "unbind", "other"}:
        return None  # of two halves: a gate of a cell, or a linear unit with one
    if "sigmoid" in operations and not operations & {"tanh", "softplus"}:
        return activation_of("gelu" if "mul" in operations else "silu", ())
    if "softplus" in operations:
        return activation_of("mish", ())
    return activation_of("gelu", ()) if operations & {"tanh", "erf"} else None
