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
    """Initialises the module when a fit begins, and logs what it changed; never when a fit is resumed.

    Right before the strategy wraps the module, once its ``configure_model`` has made all layers; where that made them
    on the meta device, right after. All ranks get the same weights. Torch's own random generators are left alone, so
    that the data come in the same order with it and without it. One that fails leaves all weights as they were.

    It is for new weights: each fit that begins at step 0 and without a checkpoint begins with them, also that of a
    second Trainer with a module that was trained before. Strategies that load a checkpoint after wrapping (FSDP,
    DeepSpeed, ModelParallel) load it over what was initialised; nothing is logged then. A callback that copies weights
    in its own ``setup``, such as Lightning's ``WeightAveraging``, copies them before.

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
        if not isinstance(given, list | tuple):
            raise TypeError(f"Initialise needs a list of initialisers, got {initialisers!r}. Write [...] around it.")
        self.initialisers = [_read(one) for one in initialisers]
        if not self.initialisers:
            raise ValueError("Initialise needs an initialiser, got an empty list.")
        self.seed = None if seed is None else whole_number("Initialise", "seed", seed, least=0)
        self.changes = Changes()

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Come in between: Lightning has no hook after it has restored a module and before it wraps it."""
        if stage != "fit":
            return
        self.changes = Changes()
        strategy, was = trainer.strategy, vars(trainer.strategy).get("setup")
        plain = strategy.setup

        def setup(trainer: Any) -> None:
            if was is None:
                del strategy.setup
            else:  # another callback of this kind
                strategy.setup = was
            begins = trainer.state.fn == "fit" and not _is_resumed(trainer)
            is_there = not any(param.is_meta for param in pl_module.parameters())
            if begins and is_there:
                self._initialise(trainer, pl_module)
            plain(trainer)
            if begins and not is_there:
                self._initialise(trainer, pl_module)

        strategy.setup = setup

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Log, unless a checkpoint has come over it since then."""
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
        seed = self.seed if self.seed is not None else trainer.strategy.broadcast(torch.initial_seed())
        generator, found = torch.Generator().manual_seed(seed), Changes()
        with unless_it_fails(module), torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)  # for functions that take no generator
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
    parameters = dict(list(inspect.signature(_NAMED[name]).parameters.items())[1:])  # the module comes in the fit
    if unknown := sorted(arguments.keys() - parameters.keys()):
        raise ValueError(f"Initialise can't give {name} {', '.join(unknown)}: it has no such argument.")
    needed = {key for key, one in parameters.items() if one.default is one.empty} - {"example_input"}
    if missing := sorted(needed - arguments.keys()):
        raise ValueError(f"Initialise needs {', '.join(missing)} for {name}: {{'{name}': {{'{missing[0]}': ...}}}}.")
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
        found["example_input"] = _like(next(module.parameters()), module.example_input_array)
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


def _like(param: torch.Tensor, example: Any) -> Any:
    """Move an example to where the weights are, and its floating-point numbers to their dtype."""
    if type(example) in (list, tuple):
        return type(example)(_like(param, item) for item in example)
    if isinstance(example, dict):
        return {name: _like(param, item) for name, item in example.items()}
    if isinstance(example, torch.Tensor) and example.is_floating_point():
        return example.to(param.device, param.dtype)
    return example.to(param.device) if hasattr(example, "to") else example
