"""Which row of a weight or bias drives which gate of which unit: found by turning it up and watching the states.

Nothing here knows the order of the blocks. With all other pre-activations at 0, gates are half open and the candidate
is 0; one knob at a time is turned up far enough to open a gate, and what becomes of the states says which gate it was.

Shape legend: H = hidden, P = width of h.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

OPEN = 40.0  # a pre-activation that saturates a gate
H0 = 0.2  # h at first
Rows = dict[str, list[int]]


def suffixes(module: nn.Module) -> list[str]:
    """Of the parameters, in the order of the states."""
    if not hasattr(module, "num_layers"):
        return [""]
    return [f"_l{k}{d}" for k in range(module.num_layers) for d in ["", "_reverse"][: 1 + module.bidirectional]]


def gate_rows(module: nn.Module, layer: int, knob: str = "bias_ih") -> Rows:
    """Give the rows of each gate in one parameter of one layer, one a unit, in the order of the units."""
    blank, suffix = _blank(module), suffixes(module)[layer]
    found = _shown(blank, knob + suffix, layer)
    content = next((gate for gate in "gn" if gate in found), None)
    if content is not None:  # gates that let something in show only once there is something
        source = {"g": "bias_ih", "n": "bias_hh"}[content] + suffix
        rows = _shown(blank, source, layer)[content]
        with torch.no_grad():
            getattr(blank, source)[list(rows.values())] = 1.0
        plain, known = _states(blank, layer)[-1], {row for units in found.values() for row in units.values()}
        hidden_gate = {"g": "i", "n": "r"}[content]
        for row in set(range(len(getattr(blank, source)))) - known:
            moved = (_turned(blank, knob + suffix, row, layer)[-1] - plain).abs() > 1e-3
            for unit in moved.nonzero().flatten().tolist():
                found.setdefault(hidden_gate, {})[unit] = row
    return {gate: [units[unit] for unit in sorted(units)] for gate, units in found.items()}


def total(module: nn.Module, layer: int, gate: str) -> Tensor:
    """Add up what the biases of a gate are, by the rows that drive it."""
    suffix = suffixes(module)[layer]
    parts = [
        getattr(module, short + suffix).detach().double()[gate_rows(module, layer, short)[gate]]
        for short in ("bias_ih", "bias_hh")
    ]
    return parts[0] + parts[1]


def _blank(module: nn.Module) -> Any:
    """Copy a module with all weights and biases 0, in float64; gains as they are."""
    blank = copy.deepcopy(module).double()
    with torch.no_grad():
        for name, param in blank.named_parameters():
            if not name.startswith("gain"):
                param.zero_()
            if name.startswith("weight_hr"):
                param.copy_(torch.eye(*param.shape))
    return blank


@torch.no_grad()
def _turned(blank: Any, name: str, row: int, layer: int) -> list[Tensor]:
    """Give the states with one knob turned up."""
    param = getattr(blank, name)
    before = param.clone()
    param[row] += OPEN if param.dim() == 1 else OPEN / (H0 if "hh" in name else 1.0)
    states = _states(blank, layer)
    param.copy_(before)
    return states


@torch.no_grad()
def _states(blank: Any, layer: int) -> list[Tensor]:
    """Run one step on ones: the states of a layer after it, [H] each, h last where it is the only one."""
    is_pair = "LSTM" in type(blank).__name__
    width = getattr(blank, "proj_size", 0) or blank.hidden_size
    if not hasattr(blank, "num_layers"):
        h, c = torch.full((1, width), H0, dtype=torch.float64), _cell(blank)[None]
        out = blank(torch.ones(1, blank.input_size, dtype=torch.float64), (h, c) if is_pair else h)
        return [state[0] for state in (out if is_pair else (out,))]
    count = len(suffixes(blank))
    h = torch.full((count, 1, width), H0, dtype=torch.float64)
    c = _cell(blank).expand(count, 1, -1).contiguous()
    x = torch.ones(1, 1, blank.input_size, dtype=torch.float64)
    _, out = blank(x, (h, c) if is_pair else h)
    return [state[layer, 0] for state in (out if is_pair else (out,))]


def _cell(blank: Any) -> Tensor:
    """Give c at first, another one for each unit, and none at the mean: of that, a norm makes 0."""
    return torch.linspace(0.3, 0.6, blank.hidden_size, dtype=torch.float64).pow(3)


def _shown(blank: Any, name: str, layer: int) -> dict[str, dict[int, int]]:
    """Give, for each gate that shows at once, the row that moves each unit."""
    plain, found = _states(blank, layer), {}
    for row in range(len(getattr(blank, name))):
        states = _turned(blank, name, row, layer)
        gate = _moved_as(states, plain)
        if gate is not None:
            shown = plain[-1] if gate != "o" else plain[0]
            unit = ((states[0] if gate == "o" else states[-1]) - shown).abs().argmax().item()
            found.setdefault(gate, {})[unit] = row
    return found


def _moved_as(states: list[Tensor], plain: list[Tensor]) -> str | None:
    """Name the gate whose opening moves the states like this; of all units, one moves."""
    new, old = states[-1], plain[-1]
    unit = (new - old).abs().argmax()
    if (new - old).abs().max() > 1e-3:
        if abs(new[unit] - 2 * old[unit]) < 1e-9:
            return "f" if len(states) == 2 else "z"  # all of the state is kept, not half of it
        if abs(new[unit] - old[unit] - 0.5) < 1e-9:
            return "g" if len(states) == 2 else "n"  # half of what is new comes in
        assert len(states) == 1, states
        return "h"  # an RNN keeps nothing
    return "o" if len(states) == 2 and (states[0] - plain[0]).abs().max() > 1e-3 else None  # in the output alone
