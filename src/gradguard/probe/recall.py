"""What the layers of a recurrent module computed in a call: their inputs, states and gates, at all steps.

Of a module of torch's, a layer's gates at all steps follow from its input and its output at once, since the output is
the h that enters them: only c has to be taken step by step. The layers below the last one, whose outputs nobody has
seen, are run once more by torch itself, as is the last one where its output is not as it was.

This file is imported where it is first needed: ``gradguard.nn`` registers operators.

Shape legend: N = rows of all steps, B = batch, L = layers times directions, D = directions, S = width of a state.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gradguard.functional import tensors_in
from gradguard.nn.doors.call import without_autocast
from gradguard.nn.gru import GRURecurrence
from gradguard.nn.kernels import KERNELS
from gradguard.nn.kernels.base import Layer, Noise, Outcome
from gradguard.nn.kernels.eager import AbstractEager
from gradguard.nn.listening import Pass
from gradguard.nn.lstm import LSTMRecurrence
from gradguard.nn.order import order_of
from gradguard.nn.recurrence import AbstractRecurrence, wide
from gradguard.nn.rnn import RNNRecurrence
from gradguard.nn.sequence import Form, rows_of
from gradguard.probe.calls import CallOfOurs, CallOfTorch, is_freed


class Refused(Exception):
    """A call that can't be replayed, and why."""


class Recalled(NamedTuple):
    """One layer in one direction.

    Attributes:
        name: such as ``l0`` or ``l1_reverse``.
        kernel: with what the layer was given.
        outcome: of its forward pass.
        turned: whether each sequence came in turned round.
    """

    name: str
    kernel: AbstractEager
    outcome: Outcome
    turned: bool = False


class OfTorch(NamedTuple):
    """A call of a module of torch's.

    Attributes:
        layers: all layers and directions.
        masks: for each layer, what its input had been multiplied with by dropout; None for nothing.
        form: in which its sequences came.
    """

    layers: list[Recalled]
    masks: list[Tensor | None]
    form: Form


def recall_ours(call: CallOfOurs) -> list[Recalled]:
    """Run each layer of one of our modules forward once more, with the masks that it had."""
    directions, found = 2 if call.module.bidirectional else 1, []
    for one in call.passes:
        layer = one._replace(params=_there(one, call.module)).layer()
        kernel = _kernel(layer)
        with without_autocast(layer.x.device.type):
            found.append(Recalled(_name(one.number, directions), kernel, kernel.forward(save=True), one.turned))
    return found


def recall_torch(call: CallOfTorch) -> OfTorch:
    """Find out what each layer of a module of torch's computed.

    Raises:
        Refused: dropout between layers that can't be drawn again.
    """
    module = call.module
    if _drops(call) and tensors_in(call.input)[0].device.type != "cpu":
        raise Refused("its dropout between layers is drawn inside the device's fused kernel: set dropout=0.0")
    rows, form = rows_of(call.input, batch_first=module.batch_first)
    dtype, directions = wide(rows.dtype), 2 if module.bidirectional else 1
    rows, params = rows.detach().to(dtype), [_params(call, names, dtype) for names in module._all_weights]
    states = _states(call, form, rows)
    inputs, masks, made = _upwards(call, rows, form, params, states)
    layers = []
    for k, own in enumerate(params):
        level, second = divmod(k, directions)
        order = order_of(len(rows), form.batch, form.batch_sizes, reverse=second == 1)
        before = tuple(state[k] for state in states)
        layer = Layer(_recurrence(module), inputs[level], before, own, order, Noise(zones=(None,) * len(before)))
        kernel: Any = _kernel(layer)
        h = made[level].chunk(directions, dim=1)[second].contiguous()
        layers.append(Recalled(_name(k, directions), kernel, kernel.recalled(h)))
    return OfTorch(layers, masks, form)


def rows_like(rows: Tensor, form: Form, *, batch_first: bool) -> Tensor:
    """Lay out as rows what has the form of a module's output."""
    rows = rows.detach()
    return rows if form.packed is not None else rows_of(rows, batch_first=batch_first)[0]


def _drops(call: CallOfTorch) -> bool:
    return bool(call.training and call.module.dropout and call.module.num_layers > 1)


def _upwards(
    call: CallOfTorch, rows: Tensor, form: Form, params: Sequence[dict[str, Tensor]], states: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor | None], list[Tensor]]:
    """Input of each layer, the mask in it, and each layer's output."""
    module, directions = call.module, 2 if call.module.bidirectional else 1
    seen = None if call.output is None else rows_like(call.output, form, batch_first=module.batch_first)
    inputs: list[Tensor] = [rows]
    masks: list[Tensor | None] = [None]
    made: list[Tensor] = []
    drops = _drops(call)
    with torch.random.fork_rng([], enabled=drops):
        if drops:
            assert call.generator is not None
            torch.set_rng_state(call.generator)
        for level in range(module.num_layers):
            is_last = level == module.num_layers - 1
            if is_last and seen is not None and not drops:
                made.append(seen.to(rows.dtype))
                break
            group = slice(level * directions, (level + 1) * directions)
            weights = [weight for of_one in params[group] for weight in of_one.values()]
            made.append(_run(call, inputs[-1], form, [state[group] for state in states], weights))
            if not is_last:
                masks.append(nn.functional.dropout(torch.ones_like(made[-1]), module.dropout) if drops else None)
                inputs.append(made[-1] if masks[-1] is None else made[-1] * masks[-1])
    if drops and seen is not None:
        _check_the_same(call, made[-1], seen)
    return inputs, masks, made


def _check_the_same(call: CallOfTorch, again: Tensor, before: Tensor) -> None:
    """Refuse where the dropout was another one: only on a CPU, so that nothing has to be waited for."""
    is_precise = before.dtype in (torch.float32, torch.float64) and not call.under_autocast
    tolerance = 1e-3 if is_precise else 5e-2
    if not torch.allclose(again, before.to(again.dtype), rtol=tolerance, atol=tolerance, equal_nan=True):
        raise Refused("its dropout between layers could not be drawn again: set dropout=0.0")


def _run(call: CallOfTorch, rows: Tensor, form: Form, states: Sequence[Tensor], weights: list[Tensor]) -> Tensor:
    """Run one layer by torch's own kernel: its output, [N, D * S]."""
    module = call.module
    run: Any = getattr(torch, module.mode.lower())  # lstm, gru, rnn_tanh, rnn_relu
    hx: Any = list(states) if len(states) > 1 else states[0]
    rest = weights, module.bias, 1, 0.0, call.training, module.bidirectional
    with without_autocast(rows.device.type), warnings.catch_warnings():
        # cuDNN's, of a layer's weights that it has to copy once: here that is what is wanted.
        warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
        if form.batch_sizes is not None:
            output: Tensor = run(rows, form.batch_sizes, hx, *rest)[0]
            return output
        output = run(rows.view(form.steps, form.batch, rows.shape[1]), hx, *rest, False)[0]
        return output.reshape(len(rows), output.shape[2])


def _kernel(layer: Layer) -> AbstractEager:
    kernel = KERNELS[layer.recurrence.name]["eager"](layer)
    assert isinstance(kernel, AbstractEager)
    return kernel


def _recurrence(module: Any) -> AbstractRecurrence:
    if isinstance(module, nn.LSTM):
        return LSTMRecurrence()
    return GRURecurrence() if isinstance(module, nn.GRU) else RNNRecurrence(nonlinearity=module.nonlinearity)


def _there(one: Pass, module: Any) -> dict[str, Tensor]:
    """The parameters of a pass; those that FSDP2 has taken back since are gathered once more."""
    found = dict(one.params)
    for name, full in module._layers[one.number].items():
        if is_freed(found[name]):
            found[name] = getattr(module, full).full_tensor()
    return found


def _params(call: CallOfTorch, names: Sequence[str], dtype: torch.dtype) -> dict[str, Tensor]:
    """What a layer of torch's computed with, by the names of ours; of a sharded weight, the whole."""
    found = {}
    for full in names:
        weight = call.weights[full]
        weight = getattr(call.module, full) if is_freed(weight) else weight
        weight = weight.full_tensor() if hasattr(weight, "full_tensor") else weight
        found[full.partition("_l")[0]] = weight.detach().to(dtype)
    return found


def _states(call: CallOfTorch, form: Form, rows: Tensor) -> list[Tensor]:
    """States before the first step, [L, B, S] each."""
    module, hx = call.module, call.hx
    if hx is None:
        count = len(module._all_weights)
        widths = [module.proj_size or module.hidden_size] + [module.hidden_size] * isinstance(module, nn.LSTM)
        return [rows.new_zeros(count, form.batch, width) for width in widths]
    given = hx if isinstance(hx, tuple | list) else (hx,)
    return [form.enter(state.detach()).to(rows.dtype) for state in given]


def _name(k: int, directions: int) -> str:
    return f"l{k // directions}" + ("_reverse" if k % directions else "")
