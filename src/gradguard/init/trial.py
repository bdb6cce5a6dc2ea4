"""Running a model on an example as it runs in training, and leaving no trace of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.rnn import PackedSequence

from gradguard.init.draft import Saved


@contextmanager
def trial(who: str, model: nn.Module, example: Any) -> Iterator[Callable[[], Any]]:
    """Give a function that runs the model on the example.

    It runs in training mode, so that batch norm takes the batch's own statistics; without dropout, whose noise is none
    of the weights' doing; without gradients. Modes, buffers and random generators are afterwards as they were.

    Raises:
        ValueError: weights on the meta device; the model fails on the example.
        TypeError: a module that was compiled.
    """
    for name, param in model.named_parameters():
        if param.is_meta:
            raise ValueError(f"{who} needs to run the model, but {name} is on the meta device. Call to_empty first.")
    if any(getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()):
        raise TypeError(f"{who} needs a module that is not compiled. Initialise it before module.compile().")
    modes = [(module, module.training) for module in model.modules()]
    rates = [(module, module.dropout) for module in model.modules() if isinstance(vars(module).get("dropout"), float)]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    devices = {t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"}

    def run() -> Any:
        try:
            return _called(model, example)
        except Exception as error:
            raise ValueError(f"{who} ran the model on the example input, and it failed: {error}") from error

    try:
        model.train()
        for module in model.modules():
            if isinstance(module, _DropoutNd):
                module.train(False)
        for module, _ in rates:
            setattr(module, "dropout", 0.0)  # noqa: B010  # of a recurrent module, or attention
        with torch.no_grad(), torch.random.fork_rng(list(devices)):
            yield run
    finally:
        for module, mode in modes:
            module.training = mode
        for module, rate in rates:
            setattr(module, "dropout", rate)  # noqa: B010
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)


@contextmanager
def unless_it_fails(model: nn.Module) -> Iterator[None]:
    """Keep what the block does to a model's weights only where it ends well."""
    saved = Saved([model])
    try:
        yield
    except BaseException:
        saved.restore()
        raise


def tensors_in(value: Any) -> list[Tensor]:
    """Give the tensors in a value that a module takes or gives."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, PackedSequence):
        return [value.data]
    if isinstance(value, dict):
        value = tuple(value.values())
    return [t for item in value for t in tensors_in(item)] if isinstance(value, list | tuple) else []


def _called(model: nn.Module, example: Any) -> Any:
    if isinstance(example, PackedSequence):
        return model(example)
    if isinstance(example, dict):
        return model(**example)
    return model(*example) if isinstance(example, list | tuple) else model(example)
