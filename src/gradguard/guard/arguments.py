"""What a user may pass for model and optimizer, and what is wrong with what else comes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from gradguard.arguments import whole_number
from gradguard.clip import AbstractRescaler, check_patterns
from gradguard.detect import AbstractDetector, default_detectors
from gradguard.errors import GradGuardWarning
from gradguard.guard.hooks import innermost
from gradguard.guard.in_time import TimeWatch, cells_of, has_cells_alone, is_compiled
from gradguard.guard.track import Settings, Track
from gradguard.guard.treatment import Treatment
from gradguard.names import known_parameters
from gradguard.probe import ThroughTime
from gradguard.probe.through_time import chosen
from gradguard.record import HostReader
from gradguard.recover import BufferShadow, Skip


def norm_order(value: Any) -> float:
    """Give the order of a norm."""
    if not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"Guard needs norm_type > 0 or inf, got {value!r}.")
    return float(value)


def detector_objects(detectors: Any, *, through_time: bool) -> tuple[AbstractDetector, ...]:
    """Give the detectors to copy for each optimizer; the default ones for None."""
    if detectors is None:
        return default_detectors(through_time=through_time)
    if not isinstance(detectors, Iterable) or isinstance(detectors, str):
        raise TypeError(f"Guard needs detectors to be a list of AbstractDetector objects, got {detectors!r}.")
    chosen = tuple(detectors)
    for detector in chosen:
        if not isinstance(detector, AbstractDetector):
            hint = f" Write {detector.__name__}()." if isinstance(detector, type) else ""
            raise TypeError(f"Guard needs detectors to be AbstractDetector objects, got {detector!r}.{hint}")
    return chosen


def settings_of(
    every_n_steps: int,
    norm_type: float,
    detectors: Any,
    through_time: Any,
    reduce_losses: Callable[[Tensor], Tensor] | None,
) -> Settings:
    """Give what all tracks of a guard share."""
    every, order = whole_number("Guard", "every_n_steps", every_n_steps), norm_order(norm_type)
    return Settings(every, order, detector_objects(detectors, through_time=bool(through_time)), reduce_losses)


def clip_argument(clip: Any) -> AbstractRescaler | dict[str, AbstractRescaler] | None:
    """Give a clipper, or clippers by the names of optimizers."""
    for one in clip.values() if isinstance(clip, Mapping) else (clip,):
        if one is not None and not isinstance(one, AbstractRescaler):
            hint = f" Write {one.__name__}()." if isinstance(one, type) else ""
            hint = f" Write NormClip({one})." if isinstance(one, int | float) else hint
            raise TypeError(f"Guard needs clip to be a clipper from gradguard.clip, got {one!r}.{hint}")
    return dict(clip) if isinstance(clip, Mapping) else clip


def recover_argument(recover: Any) -> Skip | None:
    """Give how steps are skipped, or None."""
    if recover is not None and not isinstance(recover, Skip):
        hint = " Write Skip()." if recover is Skip else ""
        raise TypeError(f"Guard needs recover to be a gradguard.recover.Skip or None, got {recover!r}.{hint}")
    return recover


def treatments(
    clip: Any, recover: Any, optimizers: Mapping[str, Optimizer], models: Mapping[str, nn.Module], reader: HostReader
) -> dict[str, Treatment]:
    """Give what is to be done to the gradients of each optimizer; nothing where neither was asked for.

    Raises:
        TypeError: something that is no clipper, or no Skip.
        ValueError: an optimizer that is not there, or a pattern that matches no parameter.
    """
    clip, skip = clip_argument(clip), recover_argument(recover)
    clippers = clip if isinstance(clip, dict) else dict.fromkeys(optimizers, clip)
    for name, clipper in clippers.items():
        if name not in optimizers:
            raise ValueError(f"Guard needs clip to name optimizers ({', '.join(optimizers)}), got {name!r}.")
        if clipper is not None:
            names = [known.name for known in known_parameters(models).values()]
            check_patterns(clipper.patterns, names, type(clipper).__name__)
    shadow = None if skip is None else BufferShadow(models.values())
    return {
        name: Treatment(optimizer, name, clippers.get(name), skip, shadow, reader)
        for name, optimizer in optimizers.items()
        if clippers.get(name) is not None or skip is not None
    }


def through_time_argument(through_time: Any) -> ThroughTime | None:
    """Give how recurrent modules are looked at, or None."""
    if isinstance(through_time, bool):
        return ThroughTime() if through_time else None
    if through_time is not None and not isinstance(through_time, ThroughTime):
        hint = " Write ThroughTime()." if through_time is ThroughTime else ""
        raise TypeError(
            f"Guard needs through_time to be True, False or a gradguard.probe.ThroughTime, got {through_time!r}.{hint}"
        )
    return through_time


def time_watches(
    through_time: Any, optimizers: Mapping[str, Optimizer], models: Mapping[str, nn.Module]
) -> dict[str, TimeWatch]:
    """Give what listens to the recurrent modules of each optimizer: those that it trains.

    Raises:
        TypeError: something that is no ThroughTime.
        ValueError: there is nothing to look at.
    """
    settings = through_time_argument(through_time)
    if settings is None:
        return {}
    of_loop = settings.modules is not None and not len(settings.modules)
    cells = settings.modules is None and has_cells_alone(models)
    modules = {} if of_loop or cells else chosen("through_time", models, settings.modules)
    compiled, found = any(map(is_compiled, models.values())), {}
    for name, optimizer in optimizers.items():
        ids = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = {path: one for path, one in modules.items() if any(id(p) in ids for p in one.parameters())}
        modules = {path: one for path, one in modules.items() if path not in own}
        looped = cells_of(optimizer, models) if settings.modules is None else {}
        found[name] = TimeWatch(settings, own, compiled=compiled, cells=looped, needs_states=cells)
    first = next((name for name, optimizer in optimizers.items() if cells_of(optimizer, models)), next(iter(found)))
    for name, watch in found.items():  # a loop of one's own is looked at once
        watch.states = watch.states if name == first else None
    if modules:
        warnings.warn(
            f"Not looked at through time: {', '.join(p or 'the model' for p in modules)}, which no optimizer trains.",
            GradGuardWarning,
            stacklevel=3,
        )
    return found


def named_models(model: Any) -> dict[str, nn.Module]:
    """Give the models by name; a single one has the empty name."""
    models = {"": model} if isinstance(model, nn.Module) else model
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"Guard needs a torch.nn.Module, or several in a dict by name, got {type(model).__name__}.")
    for name, one in models.items():
        if not isinstance(one, nn.Module):
            raise TypeError(f"Guard needs {name!r} to be a torch.nn.Module, got {type(one).__name__}.")
    return dict(models)


def named_optimizers(optimizer: Any, guarded: Collection[Optimizer]) -> dict[str, Optimizer]:
    """Give the optimizers by name, wrappers taken off; those of a list go by their position."""
    if isinstance(optimizer, Mapping):
        named = dict(optimizer)
    elif isinstance(optimizer, Sequence):
        named = {str(i): one for i, one in enumerate(optimizer)}
    else:
        named = {"optimizer": optimizer}
    if not named:
        raise ValueError("Guard needs at least one optimizer, got none.")
    bare = {name: innermost(one) for name, one in named.items()}
    for name, one in bare.items():
        if not isinstance(one, Optimizer):
            kind = type(one).__name__
            raise TypeError(f"Guard needs a torch.optim.Optimizer (or a list or dict of them), got {kind}.")
        if list(map(id, bare.values())).count(id(one)) > 1:
            raise ValueError(f"Guard needs distinct optimizers, got the same {type(one).__name__} twice ({name}).")
        if one in guarded:
            raise ValueError(
                f"Guard needs an optimizer without a guard, this {type(one).__name__} has one. "
                "Use that guard, or close() it first."
            )
    return bare


def device_of(models: Mapping[str, nn.Module]) -> str:
    """Say what is trained on."""
    return str(next((p.device for one in models.values() for p in one.parameters()), "unknown"))


def record_folder(run_dir: Any) -> Path | None:
    """Give the folder of the run record, or None where there is to be none: of several processes, rank 0 writes."""
    if run_dir is None:
        return None
    if not isinstance(run_dir, str | Path) or not str(run_dir):
        raise TypeError(f"Guard needs run_dir to be a path, got {run_dir!r}.")
    from torch import distributed

    is_other_rank = distributed.is_available() and distributed.is_initialized() and distributed.get_rank() != 0
    return None if is_other_rank else Path(run_dir)


def check_parameters(tracks: Iterable[Track], models: Mapping[str, nn.Module]) -> None:
    """Refuse an optimizer that trains nothing, or another model; warn of parameters that no model knows."""
    known = known_parameters(models)
    of = ", ".join(type(model).__name__ for model in models.values())
    for track in tracks:
        kind = type(track.optimizer).__name__
        if not track.params:
            raise ValueError(
                f"Guard needs something to train, but no parameter of {kind} has requires_grad=True. "
                "Unfreeze the model before you attach the guard."
            )
        strangers = [name for p, name in zip(track.params, track.layout.names, strict=True) if id(p) not in known]
        if len(strangers) == len(track.params):
            raise ValueError(
                f"Guard needs the model that {kind} trains: none of its {len(strangers)} parameters belongs to {of}. "
                "Pass that model, or build the optimizer from this one's parameters()."
            )
        if strangers:
            warnings.warn(
                f"{len(strangers)} of {len(track.params)} parameters of {kind} do not belong to {of} and go by their "
                f"place in the optimizer: {', '.join(strangers[:4])}. To name them, pass their modules, too, in a dict "
                "by name.",
                GradGuardWarning,
                stacklevel=4,
            )


def check_state(state: Any) -> None:
    """Refuse what no guard of this version has saved."""
    if not isinstance(state, Mapping):
        raise TypeError(f"load_state_dict needs what state_dict() gave, got {type(state).__name__}.")
    if state.get("version") != 1:
        raise ValueError(f"load_state_dict needs a guard's state of version 1, got version {state.get('version')}.")
