"""The gradient through time of a whole model, by one call on a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gradguard.detect import Profile
from gradguard.gates import gates_of
from gradguard.names import WRAPPERS_OF_MODULE, named_modules
from gradguard.probe.calls import Call
from gradguard.probe.hearing import Ear, alone, is_known, is_recurrent


def through_time(
    model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor], *, modules: Sequence[str] | None = None
) -> tuple[Profile, ...]:
    r"""Measure the gradient at each time step inside the recurrent layers of a model: one call, on one batch.

    .. math:: \frac{\partial L}{\partial h_t},\quad \frac{\partial L}{\partial c_t},\quad
        \frac{\partial L}{\partial a_t} \text{ of the sums } a_t \text{ that go into the gates}

    Fused ``nn.LSTM``, ``nn.GRU`` and ``nn.RNN`` and all of ``gradguard.nn`` are looked into as they are: each layer is
    run back once more, alone, from what it saw and from the gradients that came to it. For a run that goes on, use
    ``Guard(..., through_time=True)``; for a loop over cells of your own, :func:`watch_state`.

    Args:
        model: in the mode in which it is to be looked at; a compiled one is run as it was before.
        batch: passed on to ``loss_fn``.
        loss_fn: called as ``loss_fn(model, batch)``: runs the model and gives the loss.
        modules: names of the recurrent modules to look at; all of them by default.

    Returns:
        A :class:`Profile` for each layer and direction, in the order of the model.

    Raises:
        ValueError: no recurrent module, or none that was called; a loss that does not depend on them; sequences of one
            step; a layer that can't be replayed, and why.
        TypeError: a loss that is no tensor.

    Source: back-propagation through time, Pascanu et al. 2013, arXiv 1211.5063, section 2. Host sync: a few for each
    layer. Mutates: nothing: weights, gradients, buffers and random numbers are as they were.

    >>> model = nn.LSTM(4, 8)
    >>> batch = torch.randn(50, 3, 4), torch.zeros(3, 8)
    >>> def loss_fn(lstm, batch):
    ...     return (lstm(batch[0])[0][-1] - batch[1]).square().mean()
    >>> (profile,) = through_time(model, batch, loss_fn)
    >>> profile.layer, len(profile.h), profile.horizon < 50
    ('l0', 50, True)
    """
    from gradguard.init.draft import Saved

    while type(model).__name__ in WRAPPERS_OF_MODULE and isinstance(inner := getattr(model, "module", None), nn.Module):
        model = inner  # DistributedDataParallel would wait for a backward pass of all ranks
    ears = {name: Ear(module) for name, module in chosen("through_time", {"": model}, modules).items()}
    saved, limits = Saved([model], parameters=False), bounded(model)
    try:
        with alone():
            _listen(model, batch, loss_fn, ears)
        each = {name: _profiles_of(name, ear) for name, ear in ears.items()}
    finally:
        saved.restore()
        for stored, value in limits:
            stored.copy_(value)
    found = tuple(profile for of in each.values() for profile in of if len(of[0].h) > 1)
    short = {name or "(root)": len(of[0].h) for name, of in each.items() if of and len(of[0].h) < 2}
    if short and not found:
        raise ValueError(
            f"through_time needs sequences of two steps or more, {', '.join(short)} got {max(short.values())}. Where "
            "the loop over the steps is your own, use gradguard.probe.watch_state."
        )
    if found and not any(profile.length for profile in found):
        raise ValueError("through_time needs a gradient that is neither 0 nor NaN. Look at the loss: is it?")
    if not found:
        called = [name or "(root)" for name, ear in ears.items() if ear.calls]
        if not called:
            raise ValueError(
                f"through_time needs loss_fn to call the recurrent modules with gradients on, but none of "
                f"{', '.join(n or '(root)' for n in ears)} was. Is its forward called directly, under no_grad, or in a "
                "checkpoint with use_reentrant=True, which is?"
            )
        raise ValueError(
            f"through_time needs a loss that depends on the recurrent modules, but no gradient came to "
            f"{', '.join(called)}. Is their output detached, or another output used?"
        )
    return found


def chosen(who: str, models: Mapping[str, nn.Module], names: Sequence[str] | None) -> dict[str, nn.Module]:
    """Give the recurrent modules of some models by name, or those that were named.

    Raises:
        ValueError: there is none, or not one of such a name.
    """
    if isinstance(names, str):
        raise TypeError(f"{who} needs modules to be a list of names, got {names!r}.")
    there = {path: module for path, module in named_modules(models) if is_recurrent(module)}
    kinds = ", ".join(type(model).__name__ for model in models.values())
    if not there:
        raise ValueError(
            f"{who} needs a model with a recurrent module (nn.LSTM, nn.GRU, nn.RNN or one of gradguard.nn), {kinds} "
            "has none. For a loop over cells of your own, use gradguard.probe.watch_state; a Guard then wants "
            "through_time=ThroughTime(modules=())."
        )
    unknown = set(names or ()) - there.keys()
    if unknown:
        raise ValueError(
            f"{who} needs names of recurrent modules, of which {kinds} has {', '.join(n or '(root)' for n in there)}; "
            f"got {', '.join(sorted(unknown))}."
        )
    found = {path: module for path, module in there.items() if names is None or path in names}
    own = [path or "(root)" for path, module in found.items() if not is_known(module)]
    if own and (names is not None or len(own) == len(found)):
        raise ValueError(
            f"{who} needs recurrent modules as torch runs them, but {', '.join(own)} has a forward of its own. Let it "
            "hold the torch module and call that, or use gradguard.probe.watch_state."
        )
    return {path: module for path, module in found.items() if is_known(module)}


def _listen(model: nn.Module, batch: Any, loss_fn: Callable[[Any, Any], Tensor], ears: Mapping[str, Ear]) -> None:
    devices = list({t.device for t in (*model.parameters(), *model.buffers()) if t.device.type == "cuda"})
    for ear in ears.values():
        ear.on(edges=True)
    try:
        with torch.random.fork_rng(devices), torch.inference_mode(mode=False), torch.enable_grad(), uncompiled():
            loss = loss_fn(model, batch)
            if not isinstance(loss, Tensor):
                raise TypeError(f"through_time needs loss_fn to give a tensor, got {type(loss).__name__}.")
            if loss.numel() != 1:
                raise ValueError(f"through_time needs one loss, got shape {tuple(loss.shape)}. Take its mean.")
            made = [edge for ear in ears.values() for call in ear.calls for one in call.incoming for edge in one.edges]
            if made and loss.requires_grad:
                torch.autograd.grad(loss, made, allow_unused=True)
    finally:
        for ear in ears.values():
            ear.off()


def bounded(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """What an IndRNN brings back to its bound as it is called, and what it is."""
    modules = [m for m in model.modules() if gates_of(m) and hasattr(getattr(m, "recurrence", None), "bounds")]
    return [(p.data, p.detach().clone()) for module in modules for p in module.parameters(recurse=False)]


def uncompiled() -> AbstractContextManager[Any]:
    """Run a compiled model as it was before."""
    stance: Any = torch.compiler.set_stance
    uncompiled: AbstractContextManager[Any] = stance("force_eager")
    return uncompiled


def _profiles_of(name: str, ear: Ear) -> list[Profile]:
    from gradguard.probe.looking import look, profiles
    from gradguard.probe.recall import Refused

    call = last_touched(ear.calls)
    if call is None:
        return []
    try:
        looks = look(name, call)
        read = [{key: value.cpu().double() for key, value in one.numbers.items()} for one in looks]
    except Refused as why:
        raise ValueError(f"through_time can't look into {name or '(root)'}: {why}.") from why
    return profiles(looks, read)


def last_touched(calls: Sequence[Call]) -> Call | None:
    """Give the last call to which a gradient came."""
    return next((call for call in reversed(calls) if call.is_touched), None)
