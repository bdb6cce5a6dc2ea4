"""Running a model on an example as it runs in training, and leaving no trace of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence
from torch.overrides import TorchFunctionMode

from gradguard.init.draft import Saved

_DROPOUTS = {
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_alpha_dropout",
    "feature_dropout",
}


class _NoDropout(TorchFunctionMode):
    """Gives back what dropout gets, and tells attention of none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call a function of torch's, but for dropout."""
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").rstrip("_")
        if name in _DROPOUTS:
            return args[0] if args else kwargs["input"]
        if name == "scaled_dot_product_attention" and "dropout_p" in kwargs:
            kwargs = {**kwargs, "dropout_p": 0.0}
        return func(*args, **kwargs)


@contextmanager
def trial(who: str, model: nn.Module, example: Any) -> Iterator[Callable[..., Any]]:
    """Give a function that runs the model on a copy of the example.

    It runs in training mode, so that batch norm takes the batch's own statistics; without torch's dropout, whose noise
    is none of the weights' doing; without gradients. Modes, buffers and torch's random generators are afterwards as
    they were; what else a module keeps of a call, it keeps of this one.

    The function takes a context for the call, and something to tell the copy of the example to.

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
    saved = Saved([model], parameters=False)
    cuda = list({t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})

    def run(within: AbstractContextManager[Any] | None = None, told: Callable[[Any], object] | None = None) -> Any:
        given = copied(example)
        try:
            with torch.no_grad(), torch.random.fork_rng(cuda), _NoDropout(), within or nullcontext():
                if told is not None:
                    told(given)
                return _called(model, given)
        except Exception as error:
            raise ValueError(f"{who} ran the model on the example input, and it failed: {error}") from error

    try:
        model.train()
        for module, _ in rates:
            setattr(module, "dropout", 0.0)  # noqa: B010  # of a recurrent module, or attention
        with torch.no_grad():
            yield run
    finally:
        for module, mode in modes:
            module.training = mode
        for module, rate in rates:
            setattr(module, "dropout", rate)  # noqa: B010
        saved.restore()


@contextmanager
def unless_it_fails(model: nn.Module) -> Iterator[None]:
    """Keep what the block does to a model's weights only where it ends well."""
    saved = Saved([model])
    try:
        yield
    except BaseException:
        saved.restore()
        raise


def copied(value: Any) -> Any:
    """Copy the tensors in a value: a model may change what it gets."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, PackedSequence):
        return value._replace(data=value.data.detach().clone())
    if type(value) in (list, tuple):
        return type(value)(copied(item) for item in value)
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return copy.copy(value)


def _called(model: nn.Module, example: Any) -> Any:
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if type(example) is tuple else model(example)
