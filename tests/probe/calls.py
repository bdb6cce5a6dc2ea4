"""Calls of recurrent modules in every form, with losses that touch them in every place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from gradguard.nn import base
from gradguard.nn import options as family
from gradguard.probe import Profile, through_time
from tests.contracts.recurrent import IN_TRAINING, Kind, as_hx, projected, states_of
from tests.nn.kinds import LACKS, LAYERS
from tests.probe.unrolled import Heard, Unrolled, unrolled

IN, H = 3, 4
OF_TORCH: dict[str, Kind] = {
    "nn.RNN": nn.RNN,
    "nn.RNN, ReLU": partial(nn.RNN, nonlinearity="relu"),
    "nn.GRU": nn.GRU,
    "nn.LSTM": nn.LSTM,
}
KINDS = OF_TORCH | LAYERS | IN_TRAINING
EVALUATED = "BatchNormLSTM"  # which has statistics of its own, and draws nothing


class Seen(NamedTuple):
    """What a loss sees: outputs [T, W] of each sequence, final states [L, B, S], states of each layer and sequence."""

    outputs: list[Tensor]
    finals: list[Tensor]
    every: list[list[list[Tensor]]]


def score(*tensors: Tensor) -> Tensor:
    """A number in which every entry has a weight of its own."""
    return sum((t * torch.arange(1, t.numel() + 1, dtype=t.dtype).view(t.shape)).sin().sum() for t in tensors)


LOSSES: dict[str, Callable[[Seen], Tensor]] = {
    "last": lambda seen: score(*(o[-1] for o in seen.outputs)),
    "middle": lambda seen: score(*(o[len(o) // 2] for o in seen.outputs)),
    "all": lambda seen: score(*seen.outputs),
    "final h": lambda seen: score(seen.finals[0]),
    "final states": lambda seen: score(*seen.finals),
    "mixture": lambda seen: score(seen.outputs[0][-1], seen.outputs[1][0], seen.finals[-1][:, -1], seen.finals[0]),
    "one sequence": lambda seen: score(seen.outputs[0][1]),
    "halves": lambda seen: score(*(half for o in seen.outputs for half in (o[-1, :H], o[:, H:]))),
    "states": lambda seen: score(*(rows for layer in seen.every for state in layer for rows in state[:2])),
}


class Case(NamedTuple):
    """How a module is made and called."""

    loss: str
    options: dict[str, Any] = {}  # noqa: RUF012  # of a NamedTuple, which nothing changes
    lengths: tuple[int, ...] = (5, 5, 5)
    form: str = "tensor"  # or "packed", "sorted", "unbatched"
    hx: bool = False
    training: bool = True


BOTH = {"num_layers": 2, "bidirectional": True}
UNEVEN = {"lengths": (3, 5, 2), "form": "packed"}
CASES: dict[str, Case] = {
    "one layer": Case("last"),
    "stacked, all outputs": Case("all", {"num_layers": 2}),
    "stacked, last output": Case("last", {"num_layers": 2}, hx=True),
    "both directions, packed": Case("mixture", BOTH, hx=True, **UNEVEN),
    "packed, sorted": Case("final states", {"bidirectional": True}, (5, 3, 3), "sorted"),
    "packed, last output": Case("last", {"num_layers": 2}, **UNEVEN),
    "projected": Case("final h", {"proj_size": 2} | BOTH, hx=True, **UNEVEN),
    "projected, all outputs": Case("all", {"proj_size": 3}),
    "batch first, no biases": Case("middle", {"batch_first": True, "bias": False, "bidirectional": True}),
    "unbatched": Case("last", BOTH, (5,), "unbatched", hx=True),
    "one sequence": Case("one sequence", {"num_layers": 2}, **UNEVEN),
    "one direction at its end": Case("halves", {"bidirectional": True}),
    "dropout": Case("mixture", {"dropout": 0.4} | BOTH),
}
DRAWN_BY_TORCH: dict[str, Case] = {
    "dropout, packed": Case("last", {"dropout": 0.4} | BOTH, **UNEVEN),
    "dropout, batch first": Case("all", {"dropout": 0.4, "batch_first": True, "num_layers": 3}),
    "dropout in evaluation": Case("all", {"dropout": 0.4, "num_layers": 2}, training=False),
}
EVERY_OPTION = {"variational_dropout": 0.3, "zoneout": 0.3, "weight_dropout": 0.3, "residual": True, "dropout": 0.3}
OPTIONS: dict[str, Case] = {
    "all states": Case("states", BOTH, **UNEVEN),
    "variational_dropout": Case("mixture", {"variational_dropout": 0.4} | BOTH, **UNEVEN),
    "variational_dropout, projected": Case("all", {"variational_dropout": 0.4, "proj_size": 2, "num_layers": 2}),
    "zoneout": Case("mixture", {"zoneout": 0.4} | BOTH, hx=True, **UNEVEN),
    "zoneout, last output": Case("last", {"zoneout": 0.4, "num_layers": 2}),
    "zoneout in evaluation": Case("all", {"zoneout": 0.4} | BOTH, training=False, **UNEVEN),
    "weight_dropout": Case("last", {"weight_dropout": 0.4} | BOTH),
    "residual": Case("last", {"residual": True} | BOTH, **UNEVEN),
    "clip_grad_state": Case("mixture", {"clip_grad_state": 0.05} | BOTH, **UNEVEN),
    "clip_grad_state, last output": Case("last", {"clip_grad_state": 0.05}),
    "all of them": Case("mixture", EVERY_OPTION | {"clip_grad_state": 0.5} | BOTH, hx=True, **UNEVEN),
}


def meant(kind: str, case: Case) -> bool:
    """Say whether the module has what the case asks for."""
    lacks = {*LACKS.get(kind, ()), *(() if projected(KINDS[kind]) else ("proj_size",))}
    has_statistics = kind not in IN_TRAINING or (case.training and len(case.lengths) > 1)
    return not lacks & case.options.keys() and has_statistics


def made(kind: str, case: Case) -> nn.Module:
    """Make a module whose weights are large enough for gates to open and shut."""
    module = KINDS[kind](IN, H, dtype=torch.float64, **case.options)
    with torch.no_grad():
        for param in module.parameters():
            param.uniform_(-1.1, 1.1)  # within the bound of an IndRNN
    return module.train(case.training and kind != EVALUATED)


def given(module: nn.Module, case: Case) -> tuple[Any, Any, list[Tensor], list[Tensor]]:
    """The input and the states in their form, and one by one."""
    sequences = [torch.randn(n, IN, dtype=torch.float64) for n in case.lengths]
    layers, width = module.num_layers * (2 if module.bidirectional else 1), module.proj_size or H
    widths = module.recurrence.widths(H, module.proj_size) if hasattr(module, "recurrence") else (width, H)
    widths = widths if hasattr(module, "recurrence") or isinstance(module, nn.LSTM) else widths[:1]
    states = [torch.zeros(layers, len(sequences), w, dtype=torch.float64) for w in widths]
    if case.hx:
        states = [torch.randn_like(state) for state in states]
    if case.form == "unbatched":
        return sequences[0], as_hx(s[:, 0] for s in states) if case.hx else None, sequences, states
    hx = as_hx(states) if case.hx else None
    if case.form == "tensor":
        return torch.stack(sequences, dim=0 if module.batch_first else 1), hx, sequences, states
    return pack_sequence(sequences, enforce_sorted=case.form == "sorted"), hx, sequences, states


def one_by_one(sequence: Any, case: Case) -> list[Tensor]:
    """What has the form of a module's output, as sequences [T, S]."""
    if isinstance(sequence, PackedSequence):
        return unpack_sequence(sequence)
    if case.form == "unbatched":
        return [sequence]
    return list(sequence.unbind(0 if case.options.get("batch_first") else 1))


class Called(NamedTuple):
    """What the code under test says of a call, and the same call unrolled, with its loss."""

    profiles: tuple[Profile, ...]
    unrolled: Unrolled
    loss: Tensor
    heard: Heard
    hx: Any
    output: Any


def called(kind: str, case: Case) -> Called:
    """Look into one call, and unroll the same one."""
    module, call = made(kind, case), None
    x, hx, sequences, states = given(module, case)

    def loss_fn(module: Any, batch: Any) -> Tensor:
        nonlocal call
        passes, generator, every = [], torch.get_rng_state(), []
        with pytest.MonkeyPatch.context() as patch:
            masks = recorded(patch, module)
            if hasattr(module, "listeners"):
                module.listeners = (*module.listeners, passes.append)
            output, last, *rest = module(x, hx, return_states=True) if case.loss == "states" else module(x, hx)
        if rest:
            every = [[one_by_one(s, case) for s in parts] for parts in zip(*filter(len, rest[0]), strict=True)]
        finals = [s.unsqueeze(1) if case.form == "unbatched" else s for s in states_of(last)]
        outputs = one_by_one(output, case)
        call = Heard(module, x, sequences, states, passes, masks, generator), output, outputs, finals
        return LOSSES[case.loss](Seen(outputs, finals, every))

    profiles = through_time(module, None, loss_fn)
    heard, output, outputs, finals = call
    heard.module.__dict__.pop("listeners", None)
    found = unrolled(heard)
    for a, b in zip((*outputs, *finals), (*found.outputs, *found.finals), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)  # so that all masks are the right ones
    every = [[layer.output(i) for i in range(len(layer.finals))] for layer in found.layers]
    loss = LOSSES[case.loss](Seen(found.outputs, found.finals, every))
    return Called(profiles, found, loss, heard, hx, output)


def recorded(patch: pytest.MonkeyPatch, module: nn.Module) -> list[Tensor]:
    """Note the masks that a module of ours draws of its layers' inputs and outputs."""
    masks: list[Tensor] = []
    drop = base.dropout

    def dropout(x: Tensor, p: float) -> Tensor:
        mask = drop(torch.ones_like(x), p)
        if not any(x is param for param in module.parameters()):
            masks.append(mask)
        return x * mask

    def factors(*args: Any) -> Tensor:
        masks.append(family.factors(*args))
        return masks[-1]

    patch.setattr(base, "dropout", dropout)
    patch.setattr(base, "factors", factors)
    return masks
