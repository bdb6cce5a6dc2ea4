"""From a call of a recurrent module to the profiles of its layers: the device's part first, then the host's.

This file is imported where it is first needed: ``gradguard.nn`` registers operators.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradguard.detect import Profile
from gradguard.functional import decay
from gradguard.gates import gates_of
from gradguard.probe.calls import Call
from gradguard.probe.gates import is_gated, statistics_of, values_of
from gradguard.probe.replay import EVERYTHING, Replayed, Wanted, replay

SATURATED = 1.8184464592320668  # where the slope of a tanh is a tenth
AT_END = 1e-9  # share of the squared gradient before the ends up to which the loss is at the ends alone


class Look(NamedTuple):
    """What one layer in one direction gave, on its device.

    Attributes:
        layer: its full name.
        gates: letters of its gates.
        is_last: whether it is in the last layer of its module.
        is_gated: whether its gates can saturate.
        keeps: letter of the gate that keeps the state.
        numbers: tensors by name, none of them read.
        start: first step of the window, which ``cut`` is said of.
    """

    layer: str
    gates: tuple[str, ...]
    is_last: bool
    is_gated: bool
    keeps: str | None
    numbers: dict[str, Tensor]
    start: int = 0


def look(name: str, call: Call, rows: int | None = None) -> list[Look]:
    """Look into the layers of a call.

    Args:
        name: of the module.
        call: to which gradients came.
        rows: about how many steps of all sequences the gates are summed up from, in a look that is kept short: of a
            layer's own memory, and no total gradients; None for everything.

    Raises:
        Refused: the call can't be replayed, and why.

    Host sync: none. Mutates: nothing.
    """
    directions = 2 if call.module.bidirectional else 1
    # Of two directions, a lower layer's end is not that of both above: what comes to it there takes the total.
    needs_total = directions == 2 and call.module.num_layers > 1
    layers = replay(call, EVERYTHING if rows is None else Wanted(total=needs_total, sums=False))
    gated, known = is_gated(layers[0].gates, call.module), gates_of(call.module)
    keeps = None if known is None else known.keep
    none = layers[0].lags.is_end.new_zeros(())  # on the device: nothing else is to come over
    cut = torch.stack([none, *(state.detach().any() for state in call.states)]).any()
    return [
        Look(
            f"{name}.{one.name}" if name else one.name,
            one.gates,
            k >= len(layers) - directions,
            gated,
            keeps,
            _numbers(one, gated, rows) | {"cut": cut},
        )
        for k, one in enumerate(layers)
    ]


def _numbers(one: Replayed, gated: bool, rows: int | None) -> dict[str, Tensor]:
    lags = one.lags
    precise = torch.float32 if lags.lengths.device.type == "mps" else torch.float64
    found = {"outside": lags.outside, "sequences": lags.counts(), "length": lags.lengths.to(precise).mean()}
    if one.states is not None:
        found["total"] = lags.by_lag(one.states[-1])
        *by_state, gates = lags.by_time(torch.stack([*one.states, *one.sums])).tensor_split(
            [1, 2][: len(one.states)], dim=0
        )
        found |= {"gates": gates, **{state: norms[0] for state, norms in zip("hc", by_state, strict=False)}}
    found["impulse"] = lags.by_lag(one.impulse[-1])
    if one.cells is not None:
        found["cells"] = (one.cells.abs() > SATURATED).to(precise).mean()
    if gated:
        found["opened"] = values_of(one.opened, one.gates, rows, len(lags.lengths))
    return found


def profiles(looks: Sequence[Look], read: Sequence[Mapping[str, Tensor]]) -> list[Profile]:
    """Make profiles of the looks into one module, once their numbers are on the host, in the same order."""
    is_at_end = all(float(of["outside"]) <= AT_END for one, of in zip(looks, read, strict=True) if one.is_last)
    found = []
    for one, of in zip(looks, read, strict=True):
        nothing = torch.full_like(of["sequences"], torch.nan)
        memory = of["impulse"] if "impulse" in of else of["total"]
        used = of["sequences"] > 0
        memory, sequences = memory[used], of["sequences"][used]
        found.append(
            Profile(
                one.layer,
                of.get("h", nothing),
                of.get("c"),
                dict(zip(one.gates, of.get("gates", ()), strict=False)),
                memory,
                sequences,
                decay(memory, sequences),
                float(of["length"]),
                is_at_end,
                one.start if of["cut"] else None,
                statistics_of(one.gates, of["opened"]) if one.is_gated else (),
                one.keeps,
                float(of.get("cells", math.nan)),
                "impulse" not in of and not is_at_end,
            )
        )
    return found
