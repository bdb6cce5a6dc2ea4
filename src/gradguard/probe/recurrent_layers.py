"""Recurrent modules as equations and weights, to be looked at without a trace: whole, as in evaluation, in float64.

``gradguard.nn`` registers operators: it is imported within functions, so that a plain import of the package does not.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gradguard.gates import gates_of

if TYPE_CHECKING:
    from gradguard.nn.recurrence import AbstractRecurrence
    from gradguard.nn.sequence import Form
    from gradguard.nn.step_statistics import StepStatistics


class Direction(NamedTuple):
    """One layer in one direction.

    Attributes:
        name: what is behind its parameters' names: "l0", "l0_reverse".
        recurrence: the cell.
        params: float64, as a pass in evaluation computes with them.
        statistics: what its batch norms followed, if it has some.
    """

    name: str
    recurrence: AbstractRecurrence
    params: Mapping[str, Tensor]
    statistics: StepStatistics | None = None

    @property
    def reverse(self) -> bool:
        """Whether it begins at the end."""
        return self.name.endswith("_reverse")

    @property
    def device(self) -> torch.device:
        """Where it is computed."""
        return self.params["weight_hh"].device

    def at(self, who: str, steps: int) -> Mapping[str, Tensor]:
        """Give all that some steps are computed with.

        Raises:
            ValueError: batch norms have followed nothing yet.
        """
        if self.statistics is None:
            return self.params
        if not bool(self.statistics.batches.any()):
            raise ValueError(f"{who} needs a BatchNormLSTM's followed statistics: train it on a batch first.")
        rows = self.statistics.at(0, steps)
        return {**self.params, **{name: wide(value) for name, value in rows.items()}}


def recurrent_modules(who: str, module: Any) -> list[tuple[str, nn.Module]]:
    """Give the module itself, or the layers of a ``gradguard.nn.Stack``; before each what its names begin with.

    Raises:
        TypeError: no module, or one that was scripted or compiled.
        ValueError: it is not recurrent, or a cell.
    """
    from gradguard.nn import Stack

    if not isinstance(module, nn.Module):
        raise TypeError(f"{who} needs a recurrent torch.nn.Module, got {type(module).__name__}.")
    if isinstance(module, torch.jit.ScriptModule):
        raise TypeError(f"{who} can't look into a scripted module. Call it before torch.jit.script.")
    if hasattr(module, "_orig_mod"):
        raise TypeError(f"{who} needs a module that is not compiled, got a compiled one. Give the one it was made of.")
    if isinstance(module, Stack):
        return [(f"layers.{i}.", layer) for i, each in enumerate(module.layers) for _, layer in [_one(who, each)]]
    return [_one(who, module)]


def directions_of(who: str, module: nn.Module) -> list[Direction]:
    """Give the layers and directions of a recurrent module, in the order of its states.

    Raises:
        ValueError: weights without storage, or with NaN or Inf.
    """
    from gradguard.nn import AbstractRecurrent

    recurrence, found = _recurrence_of(module), []
    for names in _names_within(module, recurrence):
        weights = {name: weight_of(module, full) for name, full in names.items()}
        for name, weight in weights.items():
            check_finite(who, f"{names[name]} of this {type(module).__name__}", weight)
        name = names["weight_hh"].removeprefix("weight_hh_")
        params = {short: wide(weight) for short, weight in recurrence.effective(weights).items()}
        statistics = getattr(module, f"statistics_{name}", None) if isinstance(module, AbstractRecurrent) else None
        found.append(Direction(name, recurrence, params, statistics))
    return found


def states_before(who: str, module: Any, directions: list[Direction], hx: Any, form: Form) -> list[Tensor]:
    """Give the states before the first step, [L, B, S] each, in the order of the rows.

    Raises:
        TypeError: they are no tensors.
        ValueError: too many, too few, of a wrong shape, or not finite.
    """
    widths, count = directions[0].recurrence.widths(module.hidden_size, module.proj_size), len(directions)
    shapes = [(count, form.batch, width) for width in widths]
    if hx is None:
        return [torch.zeros(shape, dtype=torch.float64, device=directions[0].device) for shape in shapes]
    given = (hx,) if isinstance(hx, Tensor) else hx
    if not isinstance(given, tuple | list) or not all(isinstance(state, Tensor) for state in given):
        raise TypeError(f"{who} needs hx to be one tensor for each of {len(widths)} states, got {type(hx).__name__}.")
    wanted = [shape if form.batched else (shape[0], shape[2]) for shape in shapes]
    if [tuple(state.shape) for state in given] != wanted:
        found = ", ".join(str(tuple(state.shape)) for state in given)
        raise ValueError(f"{who} needs hx of the shape {', '.join(map(str, wanted))}, got {found}.")
    for state in given:
        check_finite(who, "hx", state)
    return [wide(form.enter(state.detach())).to(directions[0].device) for state in given]


def weight_of(module: nn.Module, name: str) -> Tensor:
    """Give what a module computes with in evaluation, whole and without a gradient; nothing in it takes a step."""
    if parametrize.is_parametrized(module, name):
        parametrizations: Any = module.parametrizations
        return whole(copy.deepcopy(parametrizations[name]).eval()())  # spectral normalisation counts its looks
    for hook in module._forward_pre_hooks.values():  # of those that set a weight, what is stored is of the last pass
        if getattr(hook, "name", None) == name and hasattr(hook, "compute_weight"):
            still = (False,) if type(hook).__name__ == "SpectralNorm" else ()
            return whole(hook.compute_weight(module, *still))
        if getattr(hook, "_tensor_name", None) == name and hasattr(hook, "apply_mask"):
            return whole(hook.apply_mask(module))
    return whole(getattr(module, name))


def whole(value: Any) -> Tensor:
    """Give all of a tensor that may be spread over processes; all of them must call this together."""
    found: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    return found.detach()


def wide(value: Tensor) -> Tensor:
    """Copy to float64; from a device that has none to the CPU."""
    device = torch.device("cpu") if value.device.type == "mps" else value.device
    return value.detach().to(device).to(torch.float64, copy=True)


def check_finite(who: str, what: str, value: Tensor) -> None:
    """Refuse what is not finite, or not there.

    Raises:
        ValueError: it is so.
    """
    if value.is_meta:
        raise ValueError(f"{who} needs numbers, but {what} is on the meta device. Give it storage first: to_empty().")
    if not bool(value.isfinite().all()):
        raise ValueError(f"{who} needs finite numbers, but {what} holds NaN or Inf.")


def _one(who: str, module: nn.Module) -> tuple[str, nn.Module]:
    from gradguard.nn import AbstractRecurrent

    if isinstance(module, nn.RNN | nn.GRU | nn.LSTM | AbstractRecurrent):
        return "", module
    kind = type(module).__name__
    if gates_of(module) is not None:
        raise ValueError(f"{who} needs a module that runs over a sequence, got {kind}, which takes one step.")
    inner = [f"{path} ({type(m).__name__})" for path, m in module.named_modules() if gates_of(m) is not None]
    hint = f" It holds {', '.join(inner)}: give that." if inner else ""
    raise ValueError(f"{who} needs an RNN, GRU or LSTM, of torch or of gradguard.nn, got {kind}.{hint}")


def _recurrence_of(module: nn.Module) -> AbstractRecurrence:
    from gradguard.nn import AbstractRecurrent
    from gradguard.nn.gru import GRURecurrence
    from gradguard.nn.lstm import LSTMRecurrence
    from gradguard.nn.rnn import RNNRecurrence

    if isinstance(module, AbstractRecurrent):
        return module.recurrence
    if isinstance(module, nn.LSTM):
        return LSTMRecurrence(forget_bias=None)
    return GRURecurrence() if isinstance(module, nn.GRU) else RNNRecurrence(str(module.nonlinearity))


def _names_within(module: Any, recurrence: AbstractRecurrence) -> list[dict[str, str]]:
    from gradguard.nn import AbstractRecurrent

    if isinstance(module, AbstractRecurrent):
        return module._layers
    shapes = recurrence.shapes(module.input_size, module.hidden_size, module.proj_size, bias=module.bias)
    suffixes = [f"_l{layer}{way}" for layer in range(module.num_layers) for way in ("", "_reverse")]
    wanted = suffixes if module.bidirectional else suffixes[::2]
    return [{name: name + suffix for name in shapes} for suffix in wanted]
