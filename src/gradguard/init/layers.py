"""The recurrent layers of a model, one direction at a time, and the blocks of their weights, one gate at a time.

Shape legend: H = hidden, I = input, P = width of h (H, or the size of the projection).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gradguard.gates import Gates, gates_of
from gradguard.init.draft import Draft, has_weight, warn_of_meta
from gradguard.names import named_modules

Which = Literal["input", "recurrent", "both"]
WEIGHTS: dict[Which, tuple[str, ...]] = {
    "input": ("weight_ih", "weight_in"),
    "recurrent": ("weight_hh", "weight_hr"),
    "both": ("weight_ih", "weight_in", "weight_hh", "weight_hr"),
}
WHOLE = ("weight_in", "weight_hr")  # projections: matrices that no gate has a block of


class Layer(NamedTuple):
    """One layer in one direction, or a cell.

    Attributes:
        path: of the module, as ``named_modules`` spells it.
        module: the module or cell.
        gates: its gates.
        suffix: of its parameters' names.
    """

    path: str
    module: nn.Module
    gates: Gates
    suffix: str

    def has(self, short: str) -> bool:
        """Say whether it has this parameter."""
        return has_weight(self.module, short + self.suffix)

    def name(self, short: str, gate: str = "") -> str:
        """Spell a parameter, or one gate's block of it."""
        full = f"{self.path}.{short}{self.suffix}" if self.path else short + self.suffix
        return f"{full}[{gate}]" if gate and len(self.gates.names) > 1 else full

    def block(self, draft: Draft, short: str, gate: str) -> Tensor:
        """Give one gate's block of the draft of a parameter: [H, I], [H, P] or [H]."""
        whole, hidden = draft(self.module, short + self.suffix), int(getattr(self.module, "hidden_size"))  # noqa: B009
        start = self.gates.within(short).index(gate) * hidden
        return whole[start : start + hidden]

    def blocks(self, draft: Draft, which: Which) -> Iterator[tuple[str, Tensor]]:
        """Go through the matrices, gate by gate; a projection is a block of its own. A vector, IndRNN's, is none."""
        for short in WEIGHTS[which]:
            if not self.has(short) or draft(self.module, short + self.suffix).dim() < 2:
                continue
            if short in WHOLE:
                yield self.name(short), draft(self.module, short + self.suffix)
                continue
            for gate in self.gates.within(short):
                yield self.name(short, gate), self.block(draft, short, gate)


def layers_of(who: str, model: nn.Module) -> list[Layer]:
    """Give the recurrent layers of a model, but for those on the meta device, of which a warning tells.

    Raises:
        TypeError: no module, or one that was scripted or compiled.
        ValueError: there is no recurrent layer, or one whose parameters have no shape yet.
    """
    modules = plain_modules(who, model)
    found, meta = [], []
    for path, module in modules:
        gates = gates_of(module)
        if gates is None:
            continue
        if any(param.is_meta for param in module.parameters()):
            meta.append(path or type(module).__name__)
            continue
        found += [Layer(path, module, gates, suffix) for suffix in _suffixes(module)]
    if not found and not meta:
        raise ValueError(
            f"{who} needs an RNN, GRU or LSTM, of torch or of gradguard.nn; this {type(model).__name__} has none. For "
            "Linear and Conv there are init.for_activations_ and torch.nn.init."
        )
    warn_of_meta(who, meta)
    return found


def plain_modules(who: str, model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Give all modules of a model, each once, wrappers left out of their paths.

    Raises:
        TypeError: no module, or one that was scripted or compiled.
        ValueError: a parameter has no shape yet, or a wrapper hides parameters.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"{who} needs a torch.nn.Module, got {type(model).__name__}.")
    for module in model.modules():
        if isinstance(module, torch.jit.ScriptModule):
            raise TypeError(f"{who} can't look into a scripted module. Initialise it before torch.jit.script.")
        if hasattr(module, "_orig_mod"):
            raise TypeError(f"{who} needs a module that is not compiled. Initialise it before torch.compile.")
        for name, param in module._parameters.items():
            if isinstance(param, nn.parameter.UninitializedParameter):
                raise ValueError(
                    f"{who} needs shapes: {name} of a {type(module).__name__} has none. Run it once first."
                )
    return list(named_modules({"": model}))


def _suffixes(module: nn.Module) -> list[str]:
    layers = getattr(module, "num_layers", None)
    if layers is None:
        return [""]
    directions = ("", "_reverse") if getattr(module, "bidirectional", False) else ("",)
    return [f"_l{layer}{direction}" for layer in range(layers) for direction in directions]
