"""Initialisers as a callback."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from typing import Any, Optional, Union, final

import torch
from torch import nn

from gradguard import init
from gradguard.arguments import whole_number
from gradguard.init import Changes
from gradguard.init.trial import unless_it_fails
from gradguard.lightning.base import EitherCallback
from gradguard.lightning.keys import Keys

logger = logging.getLogger("gradguard")
Initialiser = Callable[..., Any]
_NAMED = {name: value for name, value in vars(init).items() if name.endswith("_") and callable(value)}


@final
class Initialise(EitherCallback):
    """Initialises the module once, when a fit begins, and logs what it changed; never when a fit is resumed.

    Before the strategy wraps the module, unless layers are only made in the module's own ``setup`` or
    ``configure_model``: then right after. All ranks get the same weights. Torch's own random generators are left alone,
    so that the data come in the same order with it and without it. One that fails leaves all weights as they were.

    Args:
        initialisers: each a name from :mod:`gradguard.init` (``"orthogonal_"``), a name with its arguments
            (``{"forget_gate_": {"value": 0.5}}``), or a function that takes the LightningModule, such as
            ``functools.partial(init.chrono_, t_max=200)``. Those that need an ``example_input`` get the module's
            ``example_input_array``.
        seed: what random weights are drawn from; None for the one that ``seed_everything`` set.

    Attributes:
        changes: of the last fit, a :class:`gradguard.init.Changes`; empty where it was resumed.

    Raises:
        ValueError: an unknown name or argument, or no initialiser; in ``fit``, what the initialiser raises, or a module
            without an ``example_input_array`` that one needs.
        TypeError: something that is no initialiser.

    Host sync: several a weight, once. Mutates: weights.

    >>> Initialise(["orthogonal_", {"forget_gate_": {"value": 1.0}}]).changes
    nothing was changed
    """

    def __init__(  # annotated as LightningCLI can read it on every supported Python
        self,
        initialisers: list[Union[str, dict[str, dict[str, Any]], Callable]],  # type: ignore[type-arg]  # noqa: UP007
        *,
        seed: Optional[int] = None,  # noqa: UP045
    ) -> None:
        super().__init__()
        given: Any = initialisers
        if isinstance(given, str | dict) or callable(given):
            raise TypeError(f"Initialise needs a list of initialisers, got {initialisers!r}. Write [...] around it.")
        self.initialisers = [_read(one) for one in initialisers]
        if not self.initialisers:
            raise ValueError("Initialise needs an initialiser, got an empty list.")
        self.seed = None if seed is None else whole_number("Initialise", "seed", seed, least=0)
        self.changes = Changes()
        self._is_done = False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Initialise a module that is complete already."""
        if stage == "fit":
            self.changes, self._is_done = Changes(), False
            if not any(_overrides(pl_module, hook) for hook in ("setup", "configure_model")):
                self._initialise(trainer, pl_module)

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        """Initialise what was made since then."""
        self._initialise(trainer, pl_module)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Log, unless a checkpoint has come over it: which checkpoint, Lightning says no earlier."""
        if _is_resumed(trainer):
            self.changes = Changes()
        if not self.changes:
            return
        if trainer.is_global_zero:
            logger.info("Initialised:\n%s", self.changes)
        key = Keys()
        numbers = {key(f"init/{name}"): value for name, value in self.changes.numbers().items()}
        for each in trainer.loggers:
            each.log_metrics(numbers, step=trainer.global_step)

    def _initialise(self, trainer: Any, module: nn.Module) -> None:
        if self._is_done or _is_resumed(trainer):
            return
        self._is_done = True
        seed = self.seed if self.seed is not None else trainer.strategy.broadcast(torch.initial_seed())
        generator = torch.Generator().manual_seed(seed)
        found = Changes()
        with unless_it_fails(module):
            for initialiser in self.initialisers:
                made = initialiser(module, **_wanted(initialiser, module, generator))
                found += made if isinstance(made, Changes) else Changes()
            _agree(trainer, module)
        self.changes = found


def _read(one: Any) -> Initialiser:
    if callable(one):
        return one  # type: ignore[no-any-return]  # found out above
    name: Any = one
    arguments: Any = {}
    if isinstance(one, dict) and len(one) == 1:
        name, arguments = next(iter(one.items()))
    if not isinstance(name, str) or not isinstance(arguments, dict):
        raise TypeError(
            "Initialise needs names from gradguard.init, names with arguments {'forget_gate_': {'value': 1.0}}, or "
            f"functions of a module, got {one!r}."
        )
    if name not in _NAMED:
        raise ValueError(f"Initialise knows no {name!r}, but {', '.join(sorted(_NAMED))}.")
    unknown = arguments.keys() - inspect.signature(_NAMED[name]).parameters.keys()
    if unknown:
        raise ValueError(f"Initialise can't give {name} {', '.join(sorted(unknown))}: it has no such argument.")
    return functools.partial(_NAMED[name], **arguments)


def _wanted(initialiser: Initialiser, module: Any, generator: torch.Generator) -> dict[str, Any]:
    """Give what an initialiser takes and has not been given."""
    parameters = inspect.signature(initialiser).parameters
    found: dict[str, Any] = {}
    if "generator" in parameters and parameters["generator"].default is None:
        found["generator"] = generator
    if "example_input" in parameters and parameters["example_input"].default is inspect.Parameter.empty:
        if getattr(module, "example_input_array", None) is None:
            name = getattr(getattr(initialiser, "func", initialiser), "__name__", repr(initialiser))
            raise ValueError(
                f"{name} runs the module on an example. Set self.example_input_array in {type(module).__name__}, or "
                f"pass functools.partial({name}, example_input=...)."
            )
        found["example_input"] = _moved(module.example_input_array, module.device)
    return found


def _agree(trainer: Any, module: nn.Module) -> None:
    """Give all ranks the weights of the first one, where they differ. Shards are the first one's already."""
    if trainer.world_size == 1:
        return
    whole = [p.detach() for p in module.parameters() if not p.is_meta and not hasattr(p, "full_tensor")]
    mine = [float(p.double().sum()) for p in whole]
    is_equal = trainer.strategy.broadcast(mine) == mine
    if not trainer.strategy.reduce_boolean_decision(is_equal, all=True):
        for own, first in zip(whole, trainer.strategy.broadcast([p.cpu() for p in whole]), strict=True):
            own.copy_(first)


def _is_resumed(trainer: Any) -> bool:
    return bool(trainer.ckpt_path) or trainer.global_step > 0


def _overrides(module: Any, hook: str) -> bool:
    owner = next(cls for cls in type(module).__mro__ if hook in vars(cls))
    return owner.__module__.split(".")[0] not in ("pytorch_lightning", "lightning")


def _moved(example: Any, device: torch.device) -> Any:
    if isinstance(example, tuple | list):
        return tuple(_moved(item, device) for item in example)
    if isinstance(example, dict):
        return {name: _moved(item, device) for name, item in example.items()}
    return example.to(device) if hasattr(example, "to") else example
