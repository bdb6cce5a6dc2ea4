"""What layers take and make while a model runs, those inside of a recurrent module, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradguard.functional import tensors_in
from gradguard.init.layers import Layer, layers_of
from gradguard.init.trial import copied


class Call(NamedTuple):
    """One call of a module.

    Attributes:
        input: its first argument.
        hx: its second one, the states of a recurrent module.
        output: what it gave.
    """

    input: Any
    hx: Any
    output: Any


def calls_of(layers: Mapping[str, nn.Module], run: Callable[[], Any]) -> dict[str, list[Call]]:
    """Run, and give the calls of each layer, in the order of their first ones."""
    found: dict[str, list[Call]] = {}

    def hook(path: str) -> Callable[..., None]:
        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            given = (*args, *(kwargs[name] for name in ("input", "hx") if name in kwargs), None)
            call = Call(given[0], given[1], output)
            found.setdefault(path, []).append(Call(*map(copied, call)))  # what comes next may work in place

        return after

    hooks = [layer.register_forward_hook(hook(path), with_kwargs=True) for path, layer in layers.items()]
    try:
        run()
    finally:
        for one in hooks:
            one.remove()
    return found


def inputs_of(who: str, path: str, module: nn.Module, calls: list[Call]) -> list[tuple[Layer, Tensor]]:
    """Give what each layer and direction of a recurrent module took in all of its calls: rows of features, [N, I]."""
    directions = 2 if getattr(module, "bidirectional", False) else 1
    found = []
    for i, layer in enumerate(layers_of(who, module)):
        below = i // directions
        rows = [_rows(call.input if below == 0 else _made_by_first(module, call, below)) for call in calls]
        found.append((layer._replace(path=path), torch.cat(rows)))
    return found


def _made_by_first(module: Any, call: Call, count: int) -> Any:
    """Run the first layers of a recurrent module alone."""
    directions = 2 if module.bidirectional else 1
    states = [state[: count * directions] for state in tensors_in(call.hx)]
    hx = None if not states else tuple(states) if len(states) > 1 else states[0]
    with _shortened(module, count):
        return type(module).forward(module, call.input, hx)[0]


@contextmanager
def _shortened(module: Any, count: int) -> Iterator[None]:
    """Let a module have only its first layers for a while."""
    of_torch = ("_flat_weights", "_flat_weights_names", "_flat_weight_refs")
    lists = of_torch if isinstance(module, nn.RNNBase) else ("_layers",)
    layers, held = module.num_layers, {name: getattr(module, name) for name in lists if hasattr(module, name)}
    module.num_layers = count
    for name, whole in held.items():
        setattr(module, name, whole[: len(whole) // layers * count])
    try:
        yield
    finally:
        module.num_layers = layers
        for name, whole in held.items():
            setattr(module, name, whole)


def _rows(x: Any) -> Tensor:
    data: Tensor = x.data if isinstance(x, PackedSequence) else x
    return data.reshape(-1, data.shape[-1])
