"""Running the layers of a recurrent module back once more, alone, and looking at the gradients on their way.

This file is imported where it is first needed: ``gradguard.nn`` registers operators.

Shape legend: N = rows of all steps, G = gates, H = hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.nn.doors.call import without_autocast
from gradguard.nn.kernels.witness import Witness
from gradguard.probe.calls import Call, CallOfOurs, CallOfTorch
from gradguard.probe.lags import Lags, lags_of
from gradguard.probe.recall import Recalled, Refused, recall_ours, recall_torch, rows_like

Gradients = Sequence[Tensor | None]


class Wanted(NamedTuple):
    """What of a replay is looked at.

    Attributes:
        total: the total gradients of the states, beside what comes back from the end of each sequence alone.
        sums: the total gradients of the sums that go into the gates.
    """

    total: bool = True
    sums: bool = True


EVERYTHING = Wanted()


class Replayed(NamedTuple):
    """One layer in one direction, as a replay saw it.

    Attributes:
        name: such as ``l0`` or ``l1_reverse``.
        gates: names of the recurrence's gates.
        lags: where its rows stand.
        states: [N] for each state, norms of the total gradients; None where they are not wanted.
        sums: [G, N], norms of the gradients of the sums that go into the gates; [0, N] where they are not wanted.
        impulse: [N] for each state, norms of what comes back from the gradient at each sequence's end alone.
        opened: the gates at all steps, [N, G, H].
        cells: c at all steps, [N, H]; None where there is none.
    """

    name: str
    gates: tuple[str, ...]
    lags: Lags
    states: list[Tensor] | None
    sums: Tensor
    impulse: list[Tensor]
    opened: Tensor
    cells: Tensor | None


@torch.no_grad()
def replay(call: Call, wanted: Wanted = EVERYTHING) -> list[Replayed]:
    """Run the layers of a call back once more.

    Args:
        call: to which gradients came.
        wanted: what is to be looked at; without the total, a layer of torch's gets of the one above what comes back
            from the ends alone, which at its own end is the same, of one direction.

    Returns:
        The layers, in the order of ``h_n``.

    Raises:
        Refused: something is missing.

    Host sync: none. Mutates: nothing.
    """
    if not call.is_as_it_was:
        raise Refused("its input, its states or its weights were changed in place after the call")
    if isinstance(call, CallOfOurs):
        return _of_ours(call, wanted)
    assert isinstance(call, CallOfTorch)
    return _of_torch(call, wanted)


def _of_ours(call: CallOfOurs, wanted: Wanted) -> list[Replayed]:
    found = []
    for one, incoming in zip(recall_ours(call), call.incoming, strict=True):
        n = len(one.kernel.layer.states)
        found.append(_back(one, incoming.found[:n], incoming.found[n:], wanted)[0])
    return found


def _of_torch(call: CallOfTorch, wanted: Wanted) -> list[Replayed]:
    layers, masks, form = recall_torch(call)
    directions = 2 if call.module.bidirectional else 1
    of_output, *of_finals = call.incoming[0].found
    d_out = None if of_output is None else rows_like(of_output, form, batch_first=call.module.batch_first)
    finals = [None if d is None else form.enter(d) for d in of_finals]
    found: list[Replayed] = []
    for level in reversed(range(len(masks))):
        below: Tensor | None = None
        for second in reversed(range(directions)):
            k = level * directions + second
            wide, states = layers[k].kernel.wide, len(finals)
            d_h = None if d_out is None else d_out.chunk(directions, dim=1)[second].to(wide).contiguous()
            d_last = [None if d is None else d[k].to(wide) for d in finals]
            seen, d_x = _back(layers[k], [d_h] + [None] * (states - 1), d_last, wanted, needs_x=level > 0)
            found.insert(0, seen)
            below = d_x if below is None or d_x is None else below + d_x
        mask = masks[level]
        d_out = below if below is None or mask is None else below * mask
    return found


def _back(
    one: Recalled, of_sequences: Gradients, of_finals: Gradients, wanted: Wanted, *, needs_x: bool = False
) -> tuple[Replayed, Tensor | None]:
    """Run a layer back, and look; the gradient of its x as well."""
    kernel, layer = one.kernel, one.kernel.layer
    lags = lags_of(layer.order, of_sequences, of_finals, layer.x.device, turned=one.turned)
    needed, witness, d_x = frozenset({"x"} if needs_x else ()), None, None
    is_end = lags.is_end.unsqueeze(1)
    alone = [None if d is None else torch.where(is_end, d, 0.0) for d in of_sequences]
    with without_autocast(layer.x.device.type):
        if wanted.total:
            witness = _seen(one, of_sequences, of_finals, needed, sums=wanted.sums)
            needed, d_x = frozenset(), kernel.d_x
        at_end = _seen(one, alone, of_finals, needed).states
        d_x = d_x if wanted.total else kernel.d_x
    names, opened = layer.recurrence.gates.names, kernel.gates(one.outcome)
    cells = one.outcome.sequences[1] if len(layer.states) > 1 else None
    states, sums = (None, layer.x.new_empty(0, len(layer.x))) if witness is None else (witness.states, witness.gates)
    return Replayed(one.name, names, lags, states, sums, at_end, opened, cells), d_x


def _seen(
    one: Recalled, of_sequences: Gradients, of_finals: Gradients, needed: frozenset[str], *, sums: bool = False
) -> Witness:
    kernel, layer = one.kernel, one.kernel.layer
    like, widths = layer.x.new_empty(0, dtype=kernel.wide), [state.shape[1] for state in layer.states]
    gates = len(layer.recurrence.gates.names) if sums else 0
    kernel.witness = Witness(len(layer.x), widths, gates, like)
    kernel.backward(one.outcome, of_sequences, of_finals, needed)
    return kernel.witness
