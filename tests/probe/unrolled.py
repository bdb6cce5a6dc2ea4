"""The oracle: autograd of a loop over single steps, in which each sequence is run alone, in each direction.

So packing, batching and turning round are independent of the code under test. A total gradient is that of a tensor
which everything later goes through; that of a gate's sum is that of a zero which is added to the bias at one step.

Shape legend: T = time, B = batch, I = input, P = width of h, S = width of a state, N = rows of all steps, G = gates,
H = hidden, L = layers times directions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, unpack_sequence

from gradguard.gates import gates_of
from tests.probe import steps


class Heard(NamedTuple):
    """A call, and what was drawn in it.

    Attributes:
        module: that was called.
        input: as it was called with it.
        sequences: the same, [T, I] each.
        states: before the first step, [L, B, S] each.
        passes: what a module of ours told its listener.
        masks: of layers' inputs and outputs, in the order in which they were drawn.
        generator: state of the random numbers before.
    """

    module: Any
    input: Any
    sequences: list[Tensor]
    states: list[Tensor]
    passes: list[Any]
    masks: list[Tensor]
    generator: Tensor

    def each(self, rows_NS: Tensor) -> list[Tensor]:
        """Rows in the module's order, as sequences [T, S]."""
        x = self.input
        if isinstance(x, PackedSequence):
            return unpack_sequence(PackedSequence(rows_NS, x.batch_sizes, x.sorted_indices, x.unsorted_indices))
        return list(rows_NS.reshape(-1, len(self.sequences), rows_NS.shape[-1]).unbind(1))

    def in_order(self, each_BS: Tensor) -> Tensor:
        """What there is of each sequence in the module's order, in the order of the caller."""
        there_is = isinstance(self.input, PackedSequence) and self.input.unsorted_indices is not None
        return each_BS[self.input.unsorted_indices] if there_is else each_BS

    @property
    def directions(self) -> int:
        return 2 if self.module.bidirectional else 1

    @property
    def couples(self) -> bool:
        """Whether sequences can't be run alone."""
        return type(self.module).__name__ == "BatchNormLSTM" and self.module.training


class Step(NamedTuple):
    """One step of the sequences ``who``: places in time, and tensors of which gradients are asked, [b, S] each."""

    who: list[int]
    number: int
    times: list[int]
    into: tuple[Tensor, ...]  # x, the h that enters the products, the states
    sums: Tensor  # zeros that were added to the sums, [b, G * H]
    fresh: tuple[Tensor, ...]  # the states as the cell makes them
    carried: tuple[Tensor, ...]  # the states after zoneout
    given: tuple[Tensor, ...]  # the same as they go out of the layer


class Layer(NamedTuple):
    """One layer in one direction, unrolled."""

    name: str
    gates: tuple[str, ...]
    params: dict[str, Tensor]
    steps: list[Step]
    lengths: list[int]
    finals: list[Tensor]  # of each state as it goes out of the layer, [B, S]

    def output(self, state: int = 0) -> list[Tensor]:
        """A state at all steps of each sequence, [T, S]."""
        found: list[dict[int, Tensor]] = [{} for _ in self.lengths]
        for step in self.steps:
            for row, b, t in zip(step.given[state], step.who, step.times, strict=True):
                found[b][t] = row
        return [torch.stack([rows[t] for t in sorted(rows)]) for rows in found]


class Unrolled(NamedTuple):
    """All of a call: the layers in the order of ``h_n``, and what came out."""

    layers: list[Layer]
    outputs: list[Tensor]
    finals: list[Tensor]


def unrolled(heard: Heard) -> Unrolled:
    """Take all steps of all layers."""
    module, sequences, masks = heard.module, heard.sequences, iter(heard.masks)
    settings = getattr(module, "settings", None)
    drops = module.training and module.dropout > 0
    layers: list[Layer] = []
    with torch.random.fork_rng([]):
        torch.set_rng_state(heard.generator)
        for level in range(module.num_layers):
            into = sequences
            if settings is not None and settings.variational_dropout and module.training:
                factors = heard.in_order(next(masks))
                into = [x * factor for x, factor in zip(sequences, factors, strict=True)]
            group = range(level * heard.directions, (level + 1) * heard.directions)
            layers += [_layer(heard, k, into) for k in group]
            out = [torch.cat(parts, dim=1) for parts in zip(*(layers[k].output() for k in group), strict=True)]
            if drops and level < module.num_layers - 1:
                mask = next(masks) if heard.passes else _drawn_by_torch(heard, out)
                out = [x * factor for x, factor in zip(out, heard.each(mask), strict=True)]
            if settings is not None and settings.residual:
                weight = getattr(module, f"weight_res_l{level}", None)
                out = [o + (x if weight is None else x @ weight.T) for o, x in zip(out, sequences, strict=True)]
            sequences = out
    assert next(masks, None) is None, "all that was drawn was used"
    finals = [torch.stack(each) for each in zip(*(layer.finals for layer in layers), strict=True)]
    return Unrolled(layers, sequences, finals)


def _drawn_by_torch(heard: Heard, like: list[Tensor]) -> Tensor:
    ones = torch.ones(sum(map(len, like)), like[0].shape[1], dtype=like[0].dtype)
    return nn.functional.dropout(ones, heard.module.dropout)


def _layer(heard: Heard, k: int, sequences: list[Tensor]) -> Layer:
    module, level, second = heard.module, *divmod(k, heard.directions)
    one = heard.passes[k] if heard.passes else None
    params = {n: p.detach() for n, p in (steps.params_of(module, k) if one is None else one.params).items()}
    noise = {name: params.pop(name) for name in [*params] if name.startswith(("drop_h", "zone_"))}
    step = steps.of_torch(module, params) if one is None else steps.of_ours(one.recurrence, params)
    rates = (0.0,) * len(heard.states) if one is None else one.recurrence.rates
    zones = [heard.each(noise[f"zone_{i}"]) if f"zone_{i}" in noise else rate for i, rate in enumerate(rates)]
    drop = heard.in_order(noise["drop_h"]) if "drop_h" in noise else None
    clip = None if one is None else one.recurrence.clip_grad_state
    lengths, names = [len(x) for x in sequences], gates_of(module).names
    now = {b: [state[k, b : b + 1] for state in heard.states] for b in range(len(lengths))}
    found: list[Step] = []
    for who, number in _turns(lengths, together=heard.couples):
        times = [lengths[b] - 1 - number if second else number for b in who]
        places = [number] * len(who) if one is not None and one.turned else times
        before = [torch.cat(parts) for parts in zip(*(now[b] for b in who), strict=True)]
        before[0] = _clamped(before[0], clip)
        sums = torch.zeros(len(who), len(names) * module.hidden_size, dtype=before[0].dtype, requires_grad=True)
        bias = params.get("bias_ih", 0.0) + (sums[0] if len(who) == 1 else sums)
        x = torch.stack([sequences[b][t] for b, t in zip(who, times, strict=True)])
        masked = {} if drop is None else {"drop_h": drop[who]}
        fresh = step(number, x, *before, bias_ih=bias, **masked)
        shares = [_share(zone, who, places) for zone in zones]
        carried = tuple(s * old + (1 - s) * new for s, old, new in zip(shares, before, fresh, strict=True))
        entering = before[0] if drop is None else before[0] * drop[who]
        given = tuple(state.clone() for state in carried)
        found.append(Step(who, number, times, (x, entering, *before), sums, fresh, carried, given))
        now |= {b: [state[i : i + 1] for state in carried] for i, b in enumerate(who)}
    ends = [torch.cat([state.clone() for state in states]) for states in zip(*now.values(), strict=True)]
    return Layer(f"l{level}" + "_reverse" * second, names, params, found, lengths, ends)


def _turns(lengths: Sequence[int], *, together: bool) -> Iterator[tuple[list[int], int]]:
    """Which sequences take which step next."""
    everyone = list(range(len(lengths)))
    for group in [everyone] if together else [[b] for b in everyone]:
        for number in range(max(lengths[b] for b in group)):
            yield [b for b in group if number < lengths[b]], number


def _share(zone: list[Tensor] | float, who: list[int], places: list[int]) -> Tensor | float:
    return zone if isinstance(zone, float) else torch.stack([zone[b][t] for b, t in zip(who, places, strict=True)])


def _clamped(h: Tensor, clip: float | None) -> Tensor:
    """An h that lets only so much of a gradient through."""
    h = h.clone()
    if clip is not None and h.requires_grad:
        h.register_hook(lambda grad: grad.clamp(-clip, clip))
    return h
