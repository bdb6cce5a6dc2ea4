"""What the weights of a model look like, and what about them looks wrong."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, final

import torch
from torch import Tensor, nn

from gradguard.gates import gates_of
from gradguard.init.activations import Follows, activations, feed_forward
from gradguard.init.changes import columns
from gradguard.init.draft import Draft
from gradguard.init.flow import flow_of
from gradguard.init.gains import Activation
from gradguard.init.gate_biases import bias_total
from gradguard.init.layers import WEIGHTS, WHOLE, Layer, layers_of, plain_modules
from gradguard.init.measures import condition, deviation, radius, singular_values

WHO = "describe"
CLOSED = 0.65  # bias total of the most open forget gate: above it, a tenth of the cell is left after 5 steps
FADES, GROWS = 0.7, 1.3  # spectral radius of an RNN: a memory of two steps, and explosion by ten within nine
OFF = 2.0  # gain against the one that is wanted


class Weights(NamedTuple):
    """One weight, or one gate's block of it; NaN and None where a number makes no sense.

    Attributes:
        name: as ``named_parameters`` spells it, with the gate behind.
        shape: of the block.
        std: of its entries, around their mean.
        least: smallest singular value; of a Conv, of its weights flattened to a matrix.
        most: largest singular value.
        radius: largest absolute eigenvalue of a square recurrent block.
        bias_total: mean over the units of the sum of the gate's biases.
        gain: root mean square times root of the fan, as the rule of what follows has it.
        follows: activation that the output goes to, with the gain that it wants.
        remarks: what looks wrong, and what to call against it.
    """

    name: str
    shape: tuple[int, ...]
    std: float
    least: float
    most: float
    radius: float = math.nan
    bias_total: float = math.nan
    gain: float = math.nan
    follows: Activation | None = None
    remarks: tuple[str, ...] = ()


@final
class Description(tuple[Weights, ...]):
    """The weights of a model; printed, they are a table."""

    __slots__ = ()

    @property
    def wrong(self) -> tuple[Weights, ...]:
        """Those that look wrong."""
        return tuple(row for row in self if row.remarks)

    def __str__(self) -> str:
        """Write a table."""
        header = ("weight", "std", "singular values", "radius", "bias total", "gain", "wanted", "what looks wrong")
        return columns(header, (_cells(row) for row in self), 1)

    __repr__ = __str__


@torch.no_grad()
def describe(model: nn.Module, example_input: Any = None) -> Description:
    """Say what the weights of a model look like now: before an initialiser, after it, or after training.

    Args:
        model: any model.
        example_input: what it is run on, as for :func:`for_activations_`, to see which activation follows a Linear or
            Conv; None leaves that out.

    Returns:
        One row a weight of every Linear and Conv, and one a gate's block of every recurrent layer.

    Raises:
        ValueError: the model fails on the example, or has no such layer.
        TypeError: no module, or one that was scripted or compiled.

    Host sync: several a row. Mutates: nothing.

    >>> found = describe(nn.LSTM(4, 8))
    >>> found[1].name, found[1].remarks
    ('weight_ih_l0[f]', ('the forget gate begins half closed: forget_gate_',))
    """
    layers = feed_forward(WHO, model)
    is_recurrent = any(gates_of(module) is not None for _, module in plain_modules(WHO, model))
    if not layers and not is_recurrent:
        raise ValueError(f"{WHO} needs a Linear, Conv or recurrent layer; this {type(model).__name__} has none.")
    follows = {} if example_input is None else activations(flow_of(WHO, model, example_input, layers))
    rows = [
        _matrix(path, layer, follows.get(path))
        for path, layer in layers.items()
        if not any(p.is_meta for p in layer.parameters())
    ]
    if is_recurrent:
        draft = Draft(WHO)
        rows += [row for layer in layers_of(WHO, model) for row in _gates(layer, draft)]
    return Description(rows)


def _matrix(path: str, layer: nn.Module, after: Follows | None) -> Weights:
    weight = Draft(WHO)(layer, "weight")
    remarks = _plain_remarks(weight)
    gain, follows = math.nan, None
    if after is not None:
        follows = after.activation
        gain = follows.gain * (weight.square().mean().sqrt().item() / follows.std(layer))
        if not remarks and not after.normed and not 1 / OFF < gain / follows.gain < OFF:
            verb = "shrinks" if gain < follows.gain else "grows"
            remarks = (f"the signal {verb} to {gain / follows.gain:.2g} of its size: for_activations_",)
    name = f"{path}.weight" if path else "weight"
    least, most = singular_values(weight.flatten(1))
    return Weights(
        name, tuple(weight.shape), deviation(weight), least, most, gain=gain, follows=follows, remarks=remarks
    )


def _gates(layer: Layer, draft: Draft) -> Iterator[Weights]:
    biases = [short for short in ("bias_ih", "bias_hh") if layer.has(short)]
    for short in WEIGHTS["both"]:
        if not layer.has(short):
            continue
        for gate in ("",) if short in WHOLE else layer.gates.within(short):
            block = layer.block(draft, short, gate) if gate else draft(layer.module, short + layer.suffix)
            remarks = _plain_remarks(block)
            matrix = block if block.dim() > 1 else block.diag()  # an IndRNN's units see only themselves
            turns = radius(matrix) if short == "weight_hh" and matrix.shape[0] == matrix.shape[1] else math.nan
            total = bias_total(layer, draft, gate).mean().item() if gate and biases else math.nan
            if short == "weight_ih" and gate == "f":
                remarks += _forget_remarks(layer, draft, biases, total)
            if short == "weight_hh" and block is matrix and not remarks:
                remarks = _recurrent_remarks(layer, draft, block, turns)
            least, most = singular_values(matrix)
            yield Weights(
                layer.name(short, gate),
                tuple(block.shape),
                deviation(block),
                least,
                most,
                turns,
                total,
                remarks=remarks,
            )


def _plain_remarks(weight: Tensor) -> tuple[str, ...]:
    if not bool(weight.isfinite().all()):
        return ("not finite",)
    if not bool(weight.any()):
        return ("all 0, as the end of a residual branch may be",)
    return ("all entries alike: the units can't become different",) if weight.numel() > 1 and _alike(weight) else ()


def _forget_remarks(layer: Layer, draft: Draft, biases: list[str], total: float) -> tuple[str, ...]:
    if not biases:
        return ("the forget gate is half closed and has no bias to open it: bias=True",)
    halves = [layer.block(draft, short, "f") for short in biases]
    if len(halves) == 2 and torch.equal(*halves) and _alike(halves[0]) and bool(halves[0].any()):
        return (f"{halves[0][0].item():.3g} in both biases adds up to {total:.3g}: forget_gate_",)
    most = bias_total(layer, draft, "f").max().item()  # spread gates, of chrono_ or uniform_gate_, are open somewhere
    return ("the forget gate begins half closed: forget_gate_",) if most < CLOSED else ()


def _recurrent_remarks(layer: Layer, draft: Draft, block: Tensor, turns: float) -> tuple[str, ...]:
    whole = draft(layer.module, "weight_hh" + layer.suffix)
    if len(layer.gates.names) > 1:
        is_stacked = condition(whole) < 1.001 < 1.5 < condition(block)
        return ("orthogonal as a stack, not as a gate: orthogonal_",) if is_stacked else ()
    if turns < FADES:
        return (f"the state fades to {turns:.2g} a step: orthogonal_",)
    return (f"the state grows {turns:.2g} times a step: spectral_radius_",) if turns > GROWS else ()


def _alike(tensor: Tensor) -> bool:
    return bool((tensor == tensor.flatten()[0]).all())


def _cells(row: Weights) -> tuple[str, ...]:
    def plain(value: float) -> str:
        return "" if math.isnan(value) else f"{value:.3g}"

    wanted = "" if row.follows is None else f"{row.follows.gain:.3g} ({row.follows.name})"
    values = f"{plain(row.least)} to {plain(row.most)}"
    numbers = (plain(row.radius), plain(row.bias_total), plain(row.gain))
    return row.name, plain(row.std), values, *numbers, wanted, "; ".join(row.remarks)
